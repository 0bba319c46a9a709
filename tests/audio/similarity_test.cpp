#include "annulus/model/similarity.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numbers>
#include <random>

#include "annulus/base/error.hpp"
#include "annulus/input/mel.hpp"
#include "audio/sound.hpp"
#include "input/temporary.hpp"
#include "model/brute_force.hpp"

namespace annulus {
namespace {

// Tones of random pitch and length with two overtones, and pauses: what a whistled message might be.
std::vector<float> melody(std::mt19937_64& random, double seconds, double loud) {
  const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  std::vector<float> samples;
  while (static_cast<double>(samples.size()) < seconds * 16000) {
    const double pitch = 150 * std::exp2(4 * uniform()), length = 0.08 + 0.2 * uniform(),
                 pause = uniform() < 0.15 ? 0.1 : 0;
    const auto count = static_cast<Index>(16000 * (length + pause));
    for (Index n = 0; n < count; ++n) {
      const double t = static_cast<double>(n) / 16000, angle = 2 * std::numbers::pi * pitch * t;
      const double shape = t < length ? std::sin(std::numbers::pi * t / length) : 0;
      samples.push_back(static_cast<float>(
          loud * shape * (std::sin(angle) + 0.5 * std::sin(2.1 * angle) + 0.2 * std::sin(3.3 * angle))));
    }
  }
  samples.resize(static_cast<std::size_t>(seconds * 16000));
  return samples;
}

void append(std::vector<float>& samples, const std::vector<float>& more, float loud = 1) {
  for (const float x : more) samples.push_back(loud * x);
}

void add_noise(std::vector<float>& samples, std::mt19937_64& random, double loud) {
  for (float& x : samples) x += static_cast<float>(loud * (static_cast<double>(random() >> 11) * 0x1p-53 - 0.5));
}

// A recording's finished frames, and what the model makes of all of them in one place.
struct Heard {
  SimilarityModel model;
  Index frames = 0;
  std::vector<float> mel, mean;

  explicit Heard(const std::string& path) {
    Recording recording(path);
    frames = mel_frames(recording.samples());
    mel.resize(static_cast<std::size_t>(frames * mel_bands));
    log_mel(recording, {0, frames}, mel);
    finish_mel(mel, largest(mel));
    BandSums sums(mel_bands);
    sums.add(mel);
    mean = sums.mean();
  }
  void embed_runs(std::span<const annulus::Run> runs, const Rows& q, const Rows& k, const Rows& v) const {
    const auto reader = [&](Range range, std::span<float> into) {
      ASSERT_LE(0, range.begin);
      ASSERT_LE(range.end, frames);
      std::copy_n(mel.begin() + range.begin * mel_bands, into.size(), into.begin());
    };
    embed(model, frames, reader, mean, runs, q, k, v);
  }
  // Repeated phrases as one head hears them.
  std::vector<Passage> repeated(Index head) const {
    CpuDevice device;
    const Index tokens = model.tokens(frames);
    const Array q(device, DType::f32, tokens, model.heads(), model.channels());
    const annulus::Run all{0, tokens, 1};
    embed_runs({&all, 1}, q, {}, {});
    const Rows one = q.rows().take_heads(head, head + 1);
    const BruteForce attention(one, one, one, model.mask(tokens), model.softmax_scale, 1);
    std::vector<Link> links;
    for (Index t = 0; t < tokens; ++t) append_similar_link(model, head, t, attention.top(t, 0), links);
    return merge_links(links, similarity_rules(model, head));
  }
  std::string described(const std::vector<Passage>& passages) const {
    std::string text;
    for (const Passage& p : passages)
      text += describe(p, model) + sentence("  (", p.links, " links, mean cosine ", p.mean_score, ")\n");
    return text;
  }
};

// The planted phrase is the longest that is found, from begin to end; and the only one for windows of a second and more
// (in half a second, different sounds may be alike by chance). What a window sees before and after the
// phrase is different sound, so that ends are known to half a window less; a third of it is granted.
void expect_phrase(const Heard& heard, Index head, double first, double second, double seconds) {
  const auto passages = heard.repeated(head);
  SCOPED_TRACE(heard.described(passages));
  ASSERT_GE(passages.size(), 1U);
  EXPECT_TRUE(passages.size() == 1 || head < 2);
  const Passage& p = passages[0];
  const double unit = heard.model.token_seconds();
  const double granted =
      static_cast<double>(heard.model.windows[static_cast<std::size_t>(head)]) * heard.model.frame_seconds / 3;
  EXPECT_NEAR(static_cast<double>(p.first.begin) * unit, first, granted);
  EXPECT_NEAR(static_cast<double>(p.first.end) * unit, first + seconds, granted);
  EXPECT_NEAR(static_cast<double>(p.second.begin) * unit, second, granted);
  EXPECT_NEAR(static_cast<double>(p.second.end) * unit, second + seconds, granted);
  // Where it sounds alike does not hang on the ends: the two sides are apart as the phrases are, to one token.
  EXPECT_NEAR(static_cast<double>(p.second.begin - p.first.begin) * unit, second - first, unit);
}

TEST(Similarity, APhraseThatIsPlayedTwiceIsFoundAtItsTimes) {
  const TemporaryFolder folder;
  for (const unsigned seed : {1U, 2U}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const std::vector<float> phrase = melody(random, 2.6, 0.3);
    std::vector<float> samples = melody(random, 5.0, 0.3);
    append(samples, phrase);
    append(samples, melody(random, 12.37, 0.3));
    append(samples, phrase, 0.5F);  // half as loud, and off the grid of tokens
    append(samples, melody(random, 4, 0.3));
    add_noise(samples, random, 0.002);
    const Heard heard(write_sound(folder.at("a.wav"), samples, 16000));
    for (const Index head : {1, 2, 3}) {
      SCOPED_TRACE("head " + std::to_string(head));
      expect_phrase(heard, head, 5.0, 19.97, 2.6);
    }
  }
}

TEST(Similarity, SpeechThatIsRepeatedIsFoundAtItsTimes) {
  if (std::system("espeak-ng --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "espeak-ng is not installed";
  const TemporaryFolder folder;
  const auto speak = [&](const std::string& text) {
    const std::string path = folder.at("speech.wav"),
                      command = "espeak-ng -w '" + path + "' '" + text + "' > /dev/null 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0);
    Recording recording(path);
    return recording.read({0, recording.samples()});
  };
  const std::vector<float> before = speak("Good morning everyone, it is a pleasure to see so many of you here today."),
                           phrase = speak("Please mind the gap between the train and the platform."),
                           between = speak(
                               "Some people prefer coffee, others would rather drink a cup of green tea with sugar."),
                           after = speak("Nobody knows exactly how far it is from here to the nearest lighthouse.");
  std::vector<float> samples = before;
  append(samples, phrase);
  append(samples, between);
  append(samples, phrase, 0.7F);
  append(samples, after);
  std::mt19937_64 random(4);
  add_noise(samples, random, 0.001);
  const Heard heard(write_sound(folder.at("a.flac"), samples, 16000, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16));
  const auto seconds = [](std::size_t count) { return static_cast<double>(count) / 16000; };
  const double first = seconds(before.size()), second = seconds(before.size() + phrase.size() + between.size());
  const auto passages = heard.repeated(2);
  SCOPED_TRACE(heard.described(passages));
  ASSERT_GE(passages.size(), 1U);
  const double unit = heard.model.token_seconds();
  EXPECT_NEAR(static_cast<double>(passages[0].first.begin) * unit, first, 0.5);
  EXPECT_NEAR(static_cast<double>(passages[0].second.begin) * unit, second, 0.5);
  EXPECT_NEAR(static_cast<double>(passages[0].second.end) * unit, second + seconds(phrase.size()), 0.5);
  EXPECT_NEAR(static_cast<double>(passages[0].second.begin - passages[0].first.begin) * unit, second - first, unit);
}

TEST(Similarity, SilenceAndSteadySoundLinkToNothing) {
  const TemporaryFolder folder;
  std::mt19937_64 random(5);
  SCOPED_TRACE("seed 5");
  std::vector<float> silence(16000 * 8, 0.0F), noise = silence, pauses = melody(random, 3, 0.3);
  add_noise(noise, random, 0.5);
  append(pauses, silence);
  append(pauses, melody(random, 2, 0.3));
  append(pauses, silence);
  for (const auto& [samples, name] :
       {std::pair(silence, "silence"), std::pair(noise, "noise"), std::pair(pauses, "pauses")}) {
    const Heard heard(write_sound(folder.at("a.wav"), samples, 16000));
    for (Index head = 0; head < 4; ++head)
      EXPECT_EQ(heard.described(heard.repeated(head)), "") << name << " head " << head;
  }
}

TEST(Similarity, RowsDoNotDependOnWhoEmbedsThem) {
  const TemporaryFolder folder;
  std::mt19937_64 random(6);
  SCOPED_TRACE("seed 6");
  const Heard heard(write_sound(folder.at("a.wav"), melody(random, 60.03, 0.3), 16000));
  const SimilarityModel& model = heard.model;
  const Index tokens = model.tokens(heard.frames);
  ASSERT_EQ(tokens, 1201) << "6,003 frames, five a token";
  CpuDevice device;
  const Array whole(device, DType::f32, tokens, 4, 128);
  const annulus::Run all{0, tokens, 1};
  heard.embed_runs({&all, 1}, whole, {}, {});
  for (const std::vector<annulus::Run>& runs :
       {std::vector<annulus::Run>{{1, 400, 3}}, {{700, 300, 1}, {10, 0, 1}, {1100, 101, 1}}, {{0, 2, 1200}}}) {
    Index rows = 0, row = 0;
    for (const annulus::Run run : runs) rows += run.count;
    const Array q(device, DType::f32, rows, 4, 128), v(device, DType::bf16, rows, 4, 128);
    heard.embed_runs(runs, q, {}, v);
    for (const annulus::Run run : runs)
      for (Index n = 0; n < run.count; ++n, ++row)
        for (Index h = 0; h < 4; ++h)
          for (Index c = 0; c < 128; ++c)
            ASSERT_NEAR(q.rows().at<float>(row, h)[c], whole.rows().at<float>(run.at(n), h)[c], 1e-6);
  }
  EXPECT_EQ(model.frames_of(std::vector<annulus::Run>{{10, 3, 2}, {20, 0, 1}}, heard.frames), (Range{50, 270}));
}

TEST(Similarity, PicturesHaveLengthOneOrZero) {
  const TemporaryFolder folder;
  std::mt19937_64 random(8);
  SCOPED_TRACE("seed 8");
  const Heard heard(write_sound(folder.at("a.wav"), melody(random, 6, 0.3), 16000));
  const Index tokens = heard.model.tokens(heard.frames);
  CpuDevice device;
  const Array q(device, DType::f32, tokens, 4, 128);
  const annulus::Run all{0, tokens, 1};
  heard.embed_runs({&all, 1}, q, {}, {});
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < 4; ++h) {
      double squares = 0;
      for (Index c = 0; c < 128; ++c) squares += std::pow(q.rows().at<float>(t, h)[c], 2);
      const bool leaves = t * 5 + heard.model.windows[static_cast<std::size_t>(h)] > heard.frames;
      if (leaves || squares < 0.5) EXPECT_EQ(squares, 0) << "token " << t << " head " << h;
      else EXPECT_NEAR(squares, 1, 1e-5);
    }
}

TEST(Similarity, SumsAddUpToTheMeanOfAll) {
  BandSums first(2), second(2);
  first.add(std::vector<float>{1, 2, 3, 4});
  second.add(std::vector<float>{5, 9});
  for (std::size_t n = 0; n < first.sums.size(); ++n) first.sums[n] += second.sums[n];
  EXPECT_EQ(first.mean(), (std::vector<float>{3, 5}));
  EXPECT_EQ(BandSums(2).mean(), (std::vector<float>{0, 0}));
}

TEST(Similarity, TheMaskHidesWhatOverlapsAndTimesAreReadable) {
  const SimilarityModel model;
  const Mask mask = model.mask(100);
  EXPECT_TRUE(mask.visible(45, 5));
  EXPECT_FALSE(mask.visible(45, 6));
  EXPECT_FALSE(mask.visible(5, 45));
  EXPECT_EQ(model.mask(10).pairs(), 0);
  EXPECT_EQ(time_text(12.349), "0:12.35");
  EXPECT_EQ(time_text(59.999), "1:00.00");
  EXPECT_EQ(time_text(3723.4), "1:02:03.40");
  EXPECT_EQ(describe({{247, 282}, {1248, 1283}, 1, 1}, model), "0:12.35-0:14.10 <-> 1:02.40-1:04.15");
}

TEST(Similarity, WrongShapesAreRefused) {
  const auto reader = [](Range, std::span<float>) {};
  const std::vector<float> mean(80);
  const annulus::Run outside{19, 2, 1};
  EXPECT_THROW(embed(SimilarityModel{}, 100, reader, mean, {&outside, 1}, {}, {}, {}), Error);
  EXPECT_THROW(embed(SimilarityModel{}, 100, reader, std::vector<float>(79), {}, {}, {}, {}), Error);
  EXPECT_THROW(embed(SimilarityModel{.windows = {33}}, 100, reader, mean, {}, {}, {}, {}), Error);
  EXPECT_THROW(embed(SimilarityModel{.bands = 17}, 100, reader, mean, {}, {}, {}, {}), Error);
}

}  // namespace
}  // namespace annulus

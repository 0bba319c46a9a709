#include "annulus/input/audio.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <soxr.h>

#include <cmath>
#include <numbers>
#include <random>

#include "annulus/base/error.hpp"
#include "audio/sound.hpp"
#include "input/temporary.hpp"

namespace annulus {
namespace {

using testing::HasSubstr;

// Noise and a chirp, interleaved; quiet enough for 16-bit files.
std::vector<float> sound(Index frames, int channels, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> samples;
  for (Index f = 0; f < frames; ++f)
    for (int c = 0; c < channels; ++c) {
      const double t = static_cast<double>(f) * 1e-4;
      samples.push_back(
          static_cast<float>(0.3 * std::sin(t * t + c) + 0.3 * (static_cast<double>(random()) / 0x1p32 - 0.5)));
    }
  return samples;
}

// The whole file at once, by libsoxr itself.
std::vector<float> resampled(const std::vector<float>& mono, int rate) {
  std::vector<float> out(mono.size() * 16000 / static_cast<std::size_t>(rate) + 100);
  std::size_t used = 0, made = 0;
  const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, SOXR_DOUBLE_PRECISION);
  EXPECT_EQ(soxr_oneshot(rate, 16000, 1, mono.data(), mono.size(), &used, out.data(), out.size(), &made, nullptr,
                         &quality, nullptr),
            nullptr);
  out.resize(made);
  return out;
}

std::vector<float> mixed(const std::vector<float>& samples, int channels) {
  std::vector<float> mono(samples.size() / static_cast<std::size_t>(channels));
  for (std::size_t n = 0; n < samples.size(); ++n)
    mono[n / static_cast<std::size_t>(channels)] += samples[n] / static_cast<float>(channels);
  return mono;
}

std::string complaint(const std::string& path) {
  try {
    Recording recording(path);
    recording.read({0, recording.samples()});
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file);
    return error.what();
  }
  return "no error";
}

class RecordingAtRate : public testing::TestWithParam<int> {};

TEST_P(RecordingAtRate, PartsAreWhatTheWholeFileResampledAtOnceHolds) {
  const int rate = GetParam(), channels = 1 + rate % 2;
  const TemporaryFolder folder;
  std::mt19937_64 random(20261121);
  SCOPED_TRACE("seed 20261121");
  const Index frames = static_cast<Index>(rate) * 7 / 2 + 13;
  const std::vector<float> samples = sound(frames, channels, 1), whole = resampled(mixed(samples, channels), rate);
  Recording recording(write_sound(folder.at("sound.wav"), samples, rate, channels));
  EXPECT_EQ(recording.source_frames(), frames);
  EXPECT_EQ(recording.source_channels(), channels);
  ASSERT_EQ(recording.samples(), static_cast<Index>(whole.size()));
  const auto up_to = [&](Index n) { return static_cast<Index>(random() % static_cast<std::uint64_t>(n + 1)); };
  double worst = 0;
  for (int trial = 0; trial < 12; ++trial) {
    const Index begin = trial == 0 ? 0 : up_to(recording.samples()),
                end = trial < 2 ? recording.samples() : begin + up_to(recording.samples() - begin);
    const std::vector<float> part = recording.read({begin, end});
    ASSERT_EQ(static_cast<Index>(part.size()), end - begin);
    for (Index n = begin; n < end; ++n)
      worst = std::max(worst, std::abs(static_cast<double>(part[static_cast<std::size_t>(n - begin)]) -
                                       whole[static_cast<std::size_t>(n)]));
  }
  EXPECT_LE(worst, 1.2e-7) << "two units in the last place of numbers below 1";
  RecordProperty("worst", sentence(worst));
}

INSTANTIATE_TEST_SUITE_P(Rates, RecordingAtRate,
                         testing::Values(8000, 11025, 16000, 22050, 24000, 32000, 44100, 44101, 48000, 96000, 192000,
                                         37, 100003));

TEST(Recording, FlacAndOggAreReadInPartsAsInOnePiece) {
  const TemporaryFolder folder;
  const std::vector<float> samples = sound(100'000, 2, 2);
  for (const auto& [name, format] :
       {std::pair{"a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16}, std::pair{"a.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS},
        std::pair{"a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_24}}) {
    Recording recording(write_sound(folder.at(name), samples, 44100, 2, format));
    const std::vector<float> whole = recording.read({0, recording.samples()});
    const std::vector<float> mono = resampled(mixed(samples, 2), 44100);
    double squares = 0, errors = 0;
    for (std::size_t n = 0; n < whole.size(); ++n)
      squares += mono[n] * mono[n], errors += (mono[n] - whole[n]) * (mono[n] - whole[n]);
    EXPECT_LT(errors, (std::string(name) == "a.ogg" ? 0.2 : 1e-6) * squares)
        << name << ": the sound that was written (Vorbis loses some)";
    for (Index begin = 1000; begin < recording.samples(); begin += 7001) {
      const std::vector<float> part = recording.read({begin, std::min(recording.samples(), begin + 3000)});
      for (std::size_t n = 0; n < part.size(); ++n)
        ASSERT_NEAR(part[n], whole[static_cast<std::size_t>(begin) + n], 1e-5)
            << name << " " << begin + static_cast<Index>(n);
    }
  }
}

TEST(Recording, ATruncatedOrBrokenFileIsNamed) {
  const TemporaryFolder folder;
  const std::string flac =
      write_sound(folder.at("cut.flac"), sound(200'000, 1, 3), 48000, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  std::filesystem::resize_file(flac, std::filesystem::file_size(flac) / 2);
  EXPECT_THAT(complaint(flac), HasSubstr("cut.flac"));
  EXPECT_THAT(complaint(folder.write("text.wav", "this is no sound")), HasSubstr("text.wav as a recording"));
  EXPECT_THAT(complaint(folder.write("empty.wav", "")), HasSubstr("empty.wav"));
  EXPECT_THAT(complaint(folder.at("missing.wav")), HasSubstr("missing.wav: No such file"));
  EXPECT_THAT(complaint(folder.at("")), HasSubstr("directory"));
  std::vector<float> samples = sound(5000, 1, 4);
  samples[4321] = NAN;
  EXPECT_THAT(complaint(write_sound(folder.at("nan.wav"), samples, 16000)), HasSubstr("not finite at frame 4321"));
}

TEST(Recording, WhatIsNotThereIsNotRead) {
  const TemporaryFolder folder;
  Recording recording(write_sound(folder.at("a.wav"), sound(1000, 1, 5), 16000));
  EXPECT_EQ(recording.samples(), 1000);
  EXPECT_TRUE(recording.read({1000, 1000}).empty());
  EXPECT_THROW(recording.read({0, 1001}), Error);
  EXPECT_THROW(recording.read({-1, 10}), Error);
  Recording empty(write_sound(folder.at("empty.wav"), {}, 44100));
  EXPECT_EQ(empty.samples(), 0);
  EXPECT_TRUE(empty.read({0, 0}).empty());
}

}  // namespace
}  // namespace annulus

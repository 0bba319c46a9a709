#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/input/mel.hpp"
#include "annulus/model/similarity.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/repeats.hpp"
#include "app/sequence.hpp"

namespace annulus::app {
namespace {

// Added to the name of a mask whose terms were given; "earlier sounds" is the model's own.
const std::string apart = " without overlap";

// What the terms allow, less sounds that overlap: a sound is no repetition of itself.
Mask without_overlap(const Mask& mask, Index window_tokens) {
  std::vector<Region> regions;
  for (const Region& r : mask.regions()) {
    regions.push_back({r.q, r.k, overlap(r.band, {-far, -window_tokens})});
    regions.push_back({r.q, r.k, overlap(r.band, {window_tokens, far})});
  }
  return Mask::of(std::move(regions), mask.queries(), mask.keys(), mask.name() + apart);
}

class AudioSequence final : public Sequence {
 public:
  explicit AudioSequence(const SequenceChoice& choice)
      : choice_(choice), recording_(only_file(choice)), links_(static_cast<std::size_t>(model_.heads())) {
    model_.mel_bands = annulus::mel_bands;
    model_.frame_seconds = mel_frame_seconds;
    model_.check();
    frames_ = mel_frames(recording_.samples());
    mean_.resize(static_cast<std::size_t>(mel_bands));
  }

  std::string model() const override { return "similarity"; }
  std::string token_kind() const override { return "sounds"; }
  AttentionShape shape() const override {
    return {model_.heads(), model_.heads(), model_.channels(), model_.channels(), choice_.type, model_.softmax_scale};
  }
  Index tokens() const override { return model_.tokens(frames_); }
  std::vector<Index> documents() const override { return {0, tokens()}; }
  Mask mask(const std::string& terms) const override {
    Mask own = model_.mask(tokens());
    if (terms.empty() || terms == own.name()) return own;
    const bool named = terms.ends_with(apart);
    const Mask parsed =
        Mask::parse(named ? terms.substr(0, terms.size() - apart.size()) : terms, {tokens(), tokens(), documents()});
    return without_overlap(parsed, model_.longest_window_tokens());
  }
  std::vector<std::string> files() const override { return {std::filesystem::absolute(recording_.path()).string()}; }
  Index bytes_per_token() const override { return model_.stride * mel_bands * static_cast<Index>(sizeof(float)); }

  void prepare(Transport& transport) override {
    share_ = {frames_ * transport.rank() / transport.ranks(), frames_ * (transport.rank() + 1) / transport.ranks()};
    together(transport, [&] {
      log_mel_.resize(static_cast<std::size_t>(share_.count() * mel_bands));
      log_mel(recording_, share_, log_mel_);
    });
    double loudest = largest(log_mel_);
    all_max(transport, {&loudest, 1});
    loudest_ = static_cast<float>(loudest);
    finish_mel(log_mel_, loudest_);
    BandSums sums(mel_bands);
    sums.add(log_mel_);
    all_sum(transport, sums.sums);
    mean_ = sums.mean();
  }

  void embed(std::span<const Run> runs, const Rows& q, const Rows& k, const Rows& v) override {
    const FrameReader reader = [this](Range frames, std::span<float> into) {
      log_mel(recording_, frames, into);
      finish_mel(into, loudest_);
    };
    annulus::embed(model_, frames_, reader, mean_, runs, q, k, v);
  }

  void declare(Draft& draft, const TraceChoice&) const override {
    draft.add({"tokens/time_s", {tokens()}, Element::f64, {"token"}, "s", "where the windows of the token begin"});
    draft.add({"frames/log_mel",
               {frames_, mel_bands},
               Element::f32,
               {"frame", "band"},
               "40 dB",
               "Whisper's log-mel frames of the whole recording; frame f is centred on f * hop_seconds"});
    draft.attribute("frames/log_mel", "hop_seconds", mel_frame_seconds);
    draft.attribute("frames/log_mel", "window_seconds", static_cast<double>(mel_window) / sample_rate);
    draft.attribute("/", "recording_seconds", recording_.seconds());
    draft.attribute("/", "source_rate", recording_.source_rate());
    draft.attribute("/", "source_channels", recording_.source_channels());
    draft.attribute("/", "token_seconds", model_.token_seconds());
    draft.attribute("/", "window_seconds", window_seconds());
    share_coordinates(draft, "tokens", coordinates());
  }
  std::vector<std::string> coordinates() const override { return {"time_s"}; }

  void read_out(const Job& job, Rank rank, const Traces& traces, const Rows& lse) override {
    edges_ = !traces.top_score().absent();
    if (!edges_) return;
    const Index heads = model_.heads(), k = traces.top_k();
    Index row = 0;
    for (const Run& run : job.schedule.queries.runs(rank))
      for (Index i = 0; i < run.count; ++i, ++row)
        for (Index h = 0; h < heads; ++h) {
          const auto at = static_cast<std::size_t>((row * heads + h) * k);
          const TopKeys top{traces.top_index().subspan(at, static_cast<std::size_t>(k)),
                            {traces.top_score().at<const float>(row, h), static_cast<std::size_t>(k)},
                            *lse.at<const float>(row, h)};
          append_repeat_links(model_, h, run.at(i), top, links_[static_cast<std::size_t>(h)]);
        }
  }

  void write(RowWriter& writer, std::span<const Run> runs) const override {
    std::vector<double> times;
    for (const Run& run : runs)
      for (Index i = 0; i < run.count; ++i) times.push_back(static_cast<double>(run.at(i)) * model_.token_seconds());
    writer.write_rows("tokens/time_s", runs,
                      dense_rows(times.data(), DType::f64, static_cast<Index>(times.size()), 1, 1));
    const Run mine{share_.begin, share_.count(), 1};
    writer.write_rows("frames/log_mel", {&mine, 1},
                      dense_rows(const_cast<float*>(log_mel_.data()), DType::f32, mine.count, 1, mel_bands));
  }

  void collect(Transport& transport) override {
    for (std::vector<Link>& links : links_) {
      const auto all = gather(transport, 0, std::as_bytes(std::span(links)));
      links.clear();
      for (const auto& bytes : all) {
        const std::size_t before = links.size();
        links.resize(before + bytes.size() / sizeof(Link));
        if (!bytes.empty()) std::memcpy(links.data() + before, bytes.data(), bytes.size());
      }
    }
    if (transport.rank() == 0 && edges_) repeats_ = repeated_phrases(model_, links_, least_tokens());
  }

  void write_small(Draft& draft) const override {
    if (!edges_) return;
    const std::string what = "phrases that sound alike, at two times";
    PassageTable table;
    std::vector<double> times[4];
    std::vector<Index> heads;
    for (const auto& [p, head] : repeats_) {
      for (std::size_t c = 0; const Index value : {p.first.begin, p.first.end, p.second.begin, p.second.end, p.links}) {
        if (c < 4) times[c].push_back(seconds(value));
        table.columns[c++].push_back(value);
      }
      table.score.push_back(p.mean_score);
      table.text.push_back(describe(p, model_) + ", " + length_text(seconds(p.tokens())));
      heads.push_back(head);
    }
    write_passages(draft, table, what);
    const Index rows = static_cast<Index>(repeats_.size());
    static constexpr const char* names[4] = {"first_begin_s", "first_end_s", "second_begin_s", "second_end_s"};
    for (std::size_t c = 0; c < 4; ++c)
      draft.write_small({std::string("passages/") + names[c], {rows}, Element::f64, {"passage"}, "s", what}, times[c]);
    draft.write_small({"passages/head", {rows}, Element::i64, {"passage"}, "1", "head whose window found the phrase"},
                      heads);
  }

  void print() const override {
    const Index channels = recording_.source_channels();
    std::printf("  input     %s: %s, %s Hz, %s; %s tokens of %.0f ms\n", recording_.path().c_str(),
                length_text(recording_.seconds()).c_str(), grouped(recording_.source_rate()).c_str(),
                channels == 1   ? "mono"
                : channels == 2 ? "stereo"
                                : sentence(channels, " channels").c_str(),
                grouped(tokens()).c_str(), model_.token_seconds() * 1e3);
    if (!edges_) {
      std::printf("\n  repeated phrases are found with --trace edges or full\n");
      return;
    }
    print_repeats();
  }

 private:
  static std::string only_file(const SequenceChoice& choice) {
    require(choice.files.size() == 1, "a run takes one recording, but ", choice.files.size(), " files were given");
    return choice.files.front();
  }
  Index least_tokens() const { return choice_.passage_tokens > 0 ? choice_.passage_tokens : 12; }
  double seconds(Index token) const { return static_cast<double>(token) * model_.token_seconds(); }
  std::vector<double> window_seconds() const {
    std::vector<double> result;
    for (const Index window : model_.windows) result.push_back(static_cast<double>(window) * model_.frame_seconds);
    return result;
  }
  /// "37.25 s", from a minute on "12:04.50".
  static std::string length_text(double length) {
    if (length >= 60) return time_text(length);
    char text[32];
    std::snprintf(text, sizeof text, "%.2f s", length);
    return text;
  }

  void print_repeats() const {
    constexpr std::size_t shown = 12;
    std::printf("\n  phrases of at least %.2f s that occur twice, longest first: %s\n",
                seconds(std::max(least_tokens(), shortest_phrase(model_))),
                grouped(static_cast<Index>(repeats_.size())).c_str());
    if (!repeats_.empty()) std::printf("    %-25s  %-25s  %9s  %6s\n", "first time", "again", "length", "alike");
    for (std::size_t i = 0; i < std::min(shown, repeats_.size()); ++i) {
      const Passage& p = repeats_[i].passage;
      const auto side = [&](Range r) { return time_text(seconds(r.begin)) + " - " + time_text(seconds(r.end)); };
      std::printf("    %-25s  %-25s  %7.2f s  %6.3f\n", side(p.first).c_str(), side(p.second).c_str(),
                  seconds(p.tokens()), p.mean_score);
    }
    if (repeats_.size() > shown)
      std::printf("    ... %s more in /passages\n", grouped(static_cast<Index>(repeats_.size() - shown)).c_str());
  }

  SequenceChoice choice_;
  Recording recording_;
  SimilarityModel model_;
  Index frames_ = 0;
  Range share_;                 // frames this rank stores
  std::vector<float> log_mel_;  // [share, mel_bands]
  float loudest_ = 0;           // of the whole recording, before finish_mel
  std::vector<float> mean_;
  bool edges_ = false;
  std::vector<std::vector<Link>> links_;  // by head; after collect: of all ranks, on the lead
  std::vector<Repeat> repeats_;           // on the lead
};

}  // namespace

std::unique_ptr<Sequence> make_audio_sequence(const SequenceChoice& choice) {
  return std::make_unique<AudioSequence>(choice);
}

}  // namespace annulus::app

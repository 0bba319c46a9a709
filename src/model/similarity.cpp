#include "annulus/model/similarity.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "rows_of.hpp"

namespace annulus {
namespace {

constexpr Index block_frames = 4096;  // frames in memory at a time, beside the longest window

// A stretch of frames, pooled to bands less their mean, as running sums, so that any slice is a difference of two rows.
class Pooled {
 public:
  Pooled(const SimilarityModel& model, Range frames, const FrameReader& reader, std::span<const float> mean)
      : model_(model), begin_(frames.begin), sums_(static_cast<std::size_t>((frames.count() + 1) * model.bands)) {
    std::vector<float> mel(static_cast<std::size_t>(frames.count() * model.mel_bands));
    if (!frames.empty()) reader(frames, mel);
    const Index wide = model.mel_bands / model.bands;
    for (Index f = 0; f < frames.count(); ++f)
      for (Index b = 0; b < model.bands; ++b) {
        double sum = 0;
        for (Index m = b * wide; m < (b + 1) * wide; ++m)
          sum += static_cast<double>(mel[static_cast<std::size_t>(f * model.mel_bands + m)]) -
                 mean[static_cast<std::size_t>(m)];
        at(f + 1, b) = at(f, b) + sum / static_cast<double>(wide);
      }
  }

  // The picture of `window` frames from global frame `first` on, [slices, bands], loudness removed; its length is 1, or
  // 0 when there is no sound in it. Returns the length it had.
  void picture(Index first, Index window, std::span<float> into) {
    Index silent = 0;
    double squares = 0;
    for (Index s = 0; s < model_.slices; ++s) {
      const auto slice =
          into.subspan(static_cast<std::size_t>(s * model_.bands), static_cast<std::size_t>(model_.bands));
      const Index from = first - begin_ + s * window / model_.slices,
                  to = first - begin_ + (s + 1) * window / model_.slices;
      for (Index b = 0; b < model_.bands; ++b)
        slice[static_cast<std::size_t>(b)] =
            static_cast<float>((at(to, b) - at(from, b)) / static_cast<double>(to - from));
      const double loudness = std::accumulate(slice.begin(), slice.end(), 0.0) / static_cast<double>(model_.bands);
      const bool is_silent = loudness < -model_.silence_below_mean;
      silent += is_silent ? 1 : 0;
      for (float& x : slice) {
        x = is_silent ? 0.0F : x - static_cast<float>(loudness);
        squares += static_cast<double>(x) * x;
      }
    }
    const bool sounds = 2 * silent <= model_.slices && squares > model_.least_contrast * model_.least_contrast *
                                                                     static_cast<double>(model_.channels());
    const auto factor = static_cast<float>(sounds ? 1 / std::sqrt(squares) : 0);
    for (float& x : into) x *= factor;
  }

 private:
  double& at(Index frame, Index band) { return sums_[static_cast<std::size_t>(frame * model_.bands + band)]; }

  const SimilarityModel& model_;
  Index begin_;
  std::vector<double> sums_;  // [frames + 1, bands]
};

// Tokens n, n + 1, ... of the run whose frames fit into one block.
Index block_end(const Run& run, Index n, Index stride) {
  return std::min(run.count, n + std::max<Index>(1, block_frames / (run.stride * stride)));
}

}  // namespace

void SimilarityModel::check() const {
  require(!windows.empty(), "a similarity model needs at least one head");
  require(stride > 0 && frame_seconds > 0 && slices > 0 && bands > 0,
          "stride, frame seconds, slices and bands must be positive");
  require(mel_bands > 0 && mel_bands % bands == 0, "the pooled bands must divide the mel bands: bands = ", bands,
          ", mel bands = ", mel_bands);
  require(softmax_scale > 0, "the softmax scale must be positive, not ", softmax_scale);
  for (const Index window : windows)
    require(window >= slices && window % stride == 0,
            "a window must hold at least one frame per slice and be a multiple of the stride: window = ", window,
            ", slices = ", slices, ", stride = ", stride);
}

Index SimilarityModel::longest_window_tokens() const { return *std::ranges::max_element(windows) / stride; }

Range SimilarityModel::frames_of(std::span<const Run> runs, Index frames) const {
  Range all{frames, 0};
  for (const Run& run : runs) {
    if (run.count == 0) continue;
    all.begin = std::min(all.begin, run.first * stride);
    all.end = std::max(all.end, std::min(frames, run.at(run.count - 1) * stride + *std::ranges::max_element(windows)));
  }
  return all.empty() ? Range{} : all;
}

Mask SimilarityModel::mask(Index tokens) const {
  return Mask::of({{{0, tokens}, {0, tokens}, {-far, -longest_window_tokens()}}}, tokens, tokens, "earlier sounds");
}

void BandSums::add(std::span<const float> frames) {
  const std::size_t bands = sums.size() - 1, rows = frames.size() / bands;
  for (std::size_t n = 0; n < frames.size(); ++n) sums[n % bands] += static_cast<double>(frames[n]);
  sums.back() += static_cast<double>(rows);
}

std::vector<float> BandSums::mean() const {
  std::vector<float> result(sums.size() - 1);
  if (sums.back() > 0)
    for (std::size_t b = 0; b < result.size(); ++b) result[b] = static_cast<float>(sums[b] / sums.back());
  return result;
}

void embed(const SimilarityModel& model, Index frames, const FrameReader& reader, std::span<const float> mean,
           std::span<const Run> runs, const Rows& q, const Rows& k, const Rows& v) {
  model.check();
  const Index rows = rows_of(runs, model.tokens(frames));
  for (const auto& [view, name] : {std::pair(&q, "q"), std::pair(&k, "k"), std::pair(&v, "v")})
    require_rows(*view, name, rows, model.heads(), model.channels());
  require(static_cast<Index>(mean.size()) == model.mel_bands, "the mean needs ", model.mel_bands, " bands, not ",
          mean.size());

  std::vector<float> pictures(static_cast<std::size_t>(model.heads() * model.channels()));
  const Rows picture = dense_rows(pictures.data(), DType::f32, 1, model.heads(), model.channels());
  Index row = 0;
  for (const Run& run : runs) {
    for (Index n = 0; n < run.count;) {
      const Run part{run.at(n), block_end(run, n, model.stride) - n, run.stride};
      Pooled pooled(model, model.frames_of({&part, 1}, frames), reader, mean);
      for (Index i = 0; i < part.count; ++i, ++n, ++row) {
        const Index first = part.at(i) * model.stride;
        std::ranges::fill(pictures, 0.0F);
        for (Index h = 0; h < model.heads(); ++h)
          if (const Index window = model.windows[static_cast<std::size_t>(h)]; first + window <= frames)
            pooled.picture(first, window, {picture.at<float>(0, h), static_cast<std::size_t>(model.channels())});
        for (const Rows& into : {q, k, v})
          if (!into.absent()) convert(picture, into.slice(row, row + 1));
      }
    }
  }
}

void append_similar_link(const SimilarityModel& model, Index head, Index query, const TopKeys& top,
                         std::vector<Link>& links) {
  if (top.keys.empty() || top.keys[0] < 0) return;
  const double scaled = top.scores[0], cosine = scaled / model.softmax_scale;
  if (cosine < model.threshold) return;
  const Index tokens = model.window_tokens(head);
  links.push_back({top.keys[0] + tokens - 1, query + tokens - 1, tokens, static_cast<float>(cosine),
                   static_cast<float>(std::exp(scaled - top.lse))});
}

MergeRules similarity_rules(const SimilarityModel& model, Index head) {
  return {.gap = 2, .wobble = 1, .minimum = model.window_tokens(head) + 2};
}

std::string time_text(double seconds) {
  const auto hundredths = static_cast<long long>(std::llround(seconds * 100));
  const long long minutes = hundredths / 6000, hours = minutes / 60;
  char text[64];
  if (hours > 0)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld.%02lld", hours, minutes % 60, hundredths / 100 % 60,
                  hundredths % 100);
  else std::snprintf(text, sizeof text, "%lld:%02lld.%02lld", minutes, hundredths / 100 % 60, hundredths % 100);
  return text;
}

std::string describe(const Passage& passage, const SimilarityModel& model) {
  const auto side = [&](Range tokens) {
    return time_text(static_cast<double>(tokens.begin) * model.token_seconds()) + "-" +
           time_text(static_cast<double>(tokens.end) * model.token_seconds());
  };
  return side(passage.first) + " <-> " + side(passage.second);
}

}  // namespace annulus

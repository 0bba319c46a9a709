#include "app/recompute.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "annulus/memory/device.hpp"

namespace annulus::app {
namespace {

constexpr double nothing = -std::numeric_limits<double>::infinity();
constexpr Index keys_at_a_time = 4096;

// Rows in float64, after rounding to the type that was computed with.
Array read_rows(const RowSource& source, RowSource::What what, std::span<const Run> runs, Index heads, Index channels) {
  CpuDevice cpu;
  Index rows = 0;
  for (const Run& run : runs) rows += run.count;
  const Array rounded(cpu, source.shape.type, rows, heads, channels);
  source.read(what, runs, rounded);
  static CpuDevice lasting;  // arrays outlive this function
  Array exact(lasting, DType::f64, rows, heads, channels);
  convert(rounded, exact);
  return exact;
}

double dot(const double* a, const double* b, Index n) {
  double sums[4] = {0, 0, 0, 0};
  Index i = 0;
  for (; i + 4 <= n; i += 4)
    for (int x = 0; x < 4; ++x) sums[x] += a[i + x] * b[i + x];
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// One query and head on its way through the keys.
struct RowState {
  double top = nothing, sum = 0, weighted = 0;  // weighted: sum of exp(s - top) s
  std::vector<double> out;
  std::vector<double> best;  // largest scores, descending
};

void meet_key(RowState& state, double s, const double* v, Index channels, Index top_k) {
  if (s == nothing) return;
  if (s > state.top) {
    const double keep = state.top == nothing ? 0.0 : std::exp(state.top - s);
    state.sum *= keep;
    state.weighted *= keep;
    for (double& x : state.out) x *= keep;
    state.top = s;
  }
  const double p = std::exp(s - state.top);
  state.sum += p;
  state.weighted += p * s;
  for (Index c = 0; c < channels; ++c) state.out[static_cast<std::size_t>(c)] += p * v[c];
  if (top_k == 0) return;
  state.best.insert(std::ranges::upper_bound(state.best, s, std::greater{}), s);
  if (static_cast<Index>(state.best.size()) > top_k) state.best.pop_back();
}

// Calls work(row number, query, first key, end key) for what each chosen query sees among keys [from, to).
template <class Work>
void for_visible(const Mask& mask, const std::vector<Index>& rows, Range keys, const Work& work) {
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Index q = rows[r];
    for (const Region& region : mask.near({q, q + 1})) {
      if (!region.q.contains(q)) continue;
      const Range band{region.band.lo <= -far ? -far : q + region.band.lo,
                       region.band.hi >= far ? far : q + region.band.hi + 1};
      const Range seen = overlap(overlap(region.k, band), keys);
      if (!seen.empty()) work(r, q, seen);
    }
  }
}

std::vector<Run> runs_of(const std::vector<Index>& rows) {
  std::vector<Run> runs;
  for (Index row : rows) {
    if (!runs.empty() && runs.back().first + runs.back().count == row) {
      ++runs.back().count;
    } else {
      runs.push_back({row, 1, 1});
    }
  }
  return runs;
}

class Recomputation {
 public:
  Recomputation(const RowSource& source, const RecomputeChoice& choice)
      : source_(source), s_(source.shape), choice_(choice) {
    runs_ = runs_of(choice.rows);
    q_ = read_rows(source, RowSource::What::q, runs_, s_.query_heads, s_.channels);
    states_.resize(choice.rows.size() * static_cast<std::size_t>(s_.query_heads));
    for (RowState& state : states_) state.out.assign(static_cast<std::size_t>(s_.value_channels), 0.0);
  }

  Recomputed result() {
    for_keys([&](const Array& k, const Array& v, Range keys) { forward(k, v, keys); });
    finish();
    if (choice_.gradients) backward();
    return std::move(result_);
  }

 private:
  RowState& state(std::size_t row, Index h) {
    return states_[row * static_cast<std::size_t>(s_.query_heads) + static_cast<std::size_t>(h)];
  }

  template <class Work>
  void for_keys(const Work& work) {
    for (Index from = 0; from < source_.mask.keys(); from += keys_at_a_time) {
      const Range keys{from, std::min(from + keys_at_a_time, source_.mask.keys())};
      const Run run{from, keys.count(), 1};
      const Array k = read_rows(source_, RowSource::What::k, {&run, 1}, s_.kv_heads, s_.channels);
      const Array v = read_rows(source_, RowSource::What::v, {&run, 1}, s_.kv_heads, s_.value_channels);
      work(k, v, keys);
    }
  }

  void forward(const Array& k, const Array& v, Range keys) {
    for_visible(source_.mask, choice_.rows, keys, [&](std::size_t r, Index, Range seen) {
      for (Index h = 0; h < s_.query_heads; ++h) {
        const double* q = q_.rows().at<const double>(static_cast<Index>(r), h);
        for (Index j = seen.begin; j < seen.end; ++j) {
          const Index g = h / s_.group();
          const double score = s_.softmax_scale * dot(q, k.rows().at<const double>(j - keys.begin, g), s_.channels);
          if (std::isfinite(score)) result_.largest_score = std::max(result_.largest_score, std::abs(score));
          meet_key(state(r, h), score, v.rows().at<const double>(j - keys.begin, g), s_.value_channels, choice_.top_k);
        }
      }
    });
  }

  void finish() {
    result_.rows = choice_.rows;
    for (RowState& state : states_) {
      const bool seen = state.sum > 0;
      const double lse = seen ? state.top + std::log(state.sum) : nothing;
      result_.lse.push_back(lse);
      result_.entropy.push_back(seen ? lse - state.weighted / state.sum : 0.0);
      result_.max_probability.push_back(seen ? 1 / state.sum : 0.0);
      for (double x : state.out) result_.out.push_back(seen ? x / state.sum : 0.0);
      state.best.resize(static_cast<std::size_t>(choice_.top_k), nothing);
      for (double s : state.best) result_.top_probability.push_back(s == nothing ? 0.0 : std::exp(s - lse));
    }
  }

  void backward() {
    const Array dout = read_rows(source_, RowSource::What::dout, runs_, s_.query_heads, s_.value_channels);
    const auto heads = static_cast<std::size_t>(s_.query_heads), channels = static_cast<std::size_t>(s_.channels),
               value_channels = static_cast<std::size_t>(s_.value_channels),
               kv_heads = static_cast<std::size_t>(s_.kv_heads);
    const bool all = static_cast<Index>(choice_.rows.size()) == source_.mask.queries();
    result_.dq.assign(choice_.rows.size() * heads * channels, 0.0);
    if (all) {
      result_.dk.assign(static_cast<std::size_t>(source_.mask.keys()) * kv_heads * channels, 0.0);
      result_.dv.assign(static_cast<std::size_t>(source_.mask.keys()) * kv_heads * value_channels, 0.0);
    }
    for_keys([&](const Array& k, const Array& v, Range keys) {
      for_visible(source_.mask, choice_.rows, keys, [&](std::size_t r, Index, Range seen) {
        for (std::size_t h = 0; h < heads; ++h) {
          const auto head = static_cast<Index>(h), row = static_cast<Index>(r);
          const double* q = q_.rows().at<const double>(row, head);
          const double* d = dout.rows().at<const double>(row, head);
          const double lse = result_.lse[r * heads + h];
          const double delta = dot(d, &result_.out[(r * heads + h) * value_channels], s_.value_channels);
          for (Index j = seen.begin; j < seen.end; ++j) {
            const Index g = head / s_.group();
            const double* key = k.rows().at<const double>(j - keys.begin, g);
            const double p = std::exp(s_.softmax_scale * dot(q, key, s_.channels) - lse);
            const double ds = s_.softmax_scale * p *
                              (dot(d, v.rows().at<const double>(j - keys.begin, g), s_.value_channels) - delta);
            for (std::size_t c = 0; c < channels; ++c) result_.dq[(r * heads + h) * channels + c] += ds * key[c];
            if (!all) continue;
            const std::size_t at = static_cast<std::size_t>(j) * kv_heads + static_cast<std::size_t>(g);
            for (std::size_t c = 0; c < channels; ++c) result_.dk[at * channels + c] += ds * q[c];
            for (std::size_t c = 0; c < value_channels; ++c) result_.dv[at * value_channels + c] += p * d[c];
          }
        }
      });
    });
  }

  const RowSource& source_;
  const AttentionShape s_;
  const RecomputeChoice& choice_;
  std::vector<Run> runs_;
  Array q_;
  std::vector<RowState> states_;
  Recomputed result_;
};

}  // namespace

ErrorBounds error_bounds(std::string_view kernel, DType type, double largest_score) {
  // A kernel that keeps 16 bits of f32 and f16 numbers (annulus/kernel/cpu.hpp).
  const double coarse = kernel == "tiled-amx-fast" && type != DType::bf16 ? 60 : 1;
  // A score s is a sum of f32 products: it is off by about 4 eps |s|, and so, relatively, is every exp(s - lse).
  const double score_error = coarse * 4 * 0x1p-24 * largest_score, forward = coarse * 1e-6 + score_error;
  // These kernels round probabilities to 16 bits before they meet the values; delta, and so the gradients, start from out.
  const bool rounds = kernel.ends_with("-bf16") || kernel == "cuda-mma" || kernel == "cuda-wgmma";
  const double rounding = rounds ? 0x1p-8 : kernel == "tiled-amx-split" && type == DType::f16 ? 0x1p-16 : 0;
  // Backward in tiles rounds P and dS, of bf16 inputs to bf16, of f16 inputs to two such numbers.
  const bool in_tiles = kernel.starts_with("tiled-amx-");
  const double weights = !in_tiles ? rounding : type == DType::bf16 ? 0x1p-8 : type == DType::f16 ? 0x1p-15 : 0;
  return {forward, forward + rounding, coarse * 5e-6 + 2 * score_error + std::max(rounding, weights)};
}

Recomputed recompute(const RowSource& source, const RecomputeChoice& choice) {
  return Recomputation(source, choice).result();
}

}  // namespace annulus::app

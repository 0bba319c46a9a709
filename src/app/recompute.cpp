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

// The same of magnitudes.
double size_of_dot(const double* a, const double* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += std::abs(a[i] * b[i]);
  return sum;
}

// Of what is finite: an infinite measure would make any error small.
double largest(std::span<const double> magnitudes) {
  double most = 0;
  for (const double x : magnitudes)
    if (std::isfinite(x)) most = std::max(most, x);
  return most;
}

// One query and head on its way through the keys.
struct RowState {
  double top = nothing, sum = 0;
  double weighted = 0, sink = 0, distance = 0;  // sums of exp(s - top): times s, of sink keys, times the distance
  std::vector<double> out, size;                // sums of exp(s - top) v, and of exp(s - top) |v|
  std::vector<double> best;                     // largest scores, descending
  struct Claim {
    Index key = 0, place = 0;
  };
  std::vector<Claim> claims;    // ascending
  std::vector<double> claimed;  // scores of the claims, by place; NaN: not met
};

struct Key {
  double score = 0;
  const double* v = nullptr;
  double distance = 0;
  bool sink = false;
};

void meet_key(RowState& state, const Key& key, Index channels, Index top_k) {
  const double s = key.score;
  if (s == nothing) return;
  if (s > state.top) {
    const double keep = state.top == nothing ? 0.0 : std::exp(state.top - s);
    for (double* x : {&state.sum, &state.weighted, &state.sink, &state.distance}) *x *= keep;
    for (std::size_t c = 0; c < state.out.size(); ++c) state.out[c] *= keep, state.size[c] *= keep;
    state.top = s;
  }
  const double p = std::exp(s - state.top);
  state.sum += p;
  state.weighted += p * s;
  state.sink += key.sink ? p : 0;
  state.distance += p * key.distance;
  for (Index c = 0; c < channels; ++c) {
    state.out[static_cast<std::size_t>(c)] += p * key.v[c];
    state.size[static_cast<std::size_t>(c)] += p * std::abs(key.v[c]);
  }
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
    for (RowState& state : states_) {
      state.out.assign(static_cast<std::size_t>(s_.value_channels), 0.0);
      state.size = state.out;
    }
    if (!choice.claims.empty()) claim();
  }

  Recomputed result() {
    for_keys([&](const Array& k, const Array& v, Range keys) { forward(k, v, keys); });
    finish();
    if (choice_.columns) columns();
    if (choice_.gradients) backward();
    return std::move(result_);
  }

 private:
  RowState& state(std::size_t row, Index h) {
    return states_[row * static_cast<std::size_t>(s_.query_heads) + static_cast<std::size_t>(h)];
  }

  // Sorts the claimed keys of each row, so that they are met on the way; the second claim of a key is none.
  void claim() {
    const auto k = static_cast<std::size_t>(choice_.top_k);
    for (std::size_t n = 0; n < states_.size(); ++n) {
      RowState& state = states_[n];
      state.claimed.assign(k, std::numeric_limits<double>::quiet_NaN());
      for (std::size_t place = 0; place < k; ++place)
        if (const Index key = choice_.claims[n * k + place]; key >= 0)
          state.claims.push_back({key, static_cast<Index>(place)});
      std::ranges::stable_sort(state.claims, {}, &RowState::Claim::key);
      const auto same = [](const RowState::Claim& a, const RowState::Claim& b) { return a.key == b.key; };
      state.claims.erase(std::unique(state.claims.begin(), state.claims.end(), same), state.claims.end());
    }
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
    for_visible(source_.mask, choice_.rows, keys, [&](std::size_t r, Index i, Range seen) {
      for (Index h = 0; h < s_.query_heads; ++h) {
        RowState& row = state(r, h);
        auto claim = std::ranges::lower_bound(row.claims, seen.begin, {}, &RowState::Claim::key);
        for (Index j = seen.begin; j < seen.end; ++j) {
          const Index g = h / s_.group();
          const double s = score(r, h, k, j - keys.begin);
          if (std::isfinite(s)) result_.largest_score = std::max(result_.largest_score, std::abs(s));
          const double distance = std::abs(static_cast<double>(j - i - source_.mask.query_shift()));
          meet_key(row, {s, v.rows().at<const double>(j - keys.begin, g), distance, j < choice_.sink_tokens},
                   s_.value_channels, choice_.top_k);
          if (claim == row.claims.end() || claim->key != j) continue;
          row.claimed[static_cast<std::size_t>(claim->place)] = s;
          ++claim;
        }
      }
    });
  }

  double score(std::size_t r, Index h, const Array& k, Index row) const {
    return s_.softmax_scale * dot(q_.rows().at<const double>(static_cast<Index>(r), h),
                                  k.rows().at<const double>(row, h / s_.group()), s_.channels);
  }

  void finish() {
    result_.rows = choice_.rows;
    for (RowState& state : states_) {
      const bool seen = state.sum > 0;
      const double lse = seen ? state.top + std::log(state.sum) : nothing;
      result_.lse.push_back(lse);
      result_.entropy.push_back(seen ? lse - state.weighted / state.sum : 0.0);
      result_.max_probability.push_back(seen ? 1 / state.sum : 0.0);
      result_.sink_mass.push_back(seen ? state.sink / state.sum : 0.0);
      result_.mean_distance.push_back(seen ? state.distance / state.sum : 0.0);
      for (double x : state.out) result_.out.push_back(seen ? x / state.sum : 0.0);
      for (double x : state.size) sizes_.push_back(seen ? x / state.sum : 0.0);
      state.best.resize(static_cast<std::size_t>(choice_.top_k), nothing);
      for (double s : state.best) result_.top_probability.push_back(s == nothing ? 0.0 : std::exp(s - lse));
      judge_claims(state, lse);
    }
    result_.magnitudes.out = largest(sizes_);
  }

  void judge_claims(const RowState& state, double lse) {
    const std::size_t begin = result_.claimed_probability.size();
    for (double s : state.claimed) result_.claimed_probability.push_back(std::exp(s - lse));
    for (std::size_t place = 0; place < state.claimed.size(); ++place)  // no key where there is none is right
      if (choice_.claims[begin + place] < 0 && state.best[place] == nothing)
        result_.claimed_probability[begin + place] = 0;
  }

  void columns() {
    const auto heads = static_cast<std::size_t>(s_.query_heads);
    const Index block = choice_.block_tokens, queries = source_.mask.queries();
    const Index query_blocks = block > 0 ? std::max<Index>(1, ceil_div(queries, block)) : 0,
                key_blocks = block > 0 ? std::max<Index>(1, ceil_div(source_.mask.keys(), block)) : 0;
    result_.received.assign(static_cast<std::size_t>(source_.mask.keys()) * heads, 0.0);
    result_.block_mass.assign(heads * static_cast<std::size_t>(query_blocks * key_blocks), 0.0);
    const auto map = [&](Index h, Index query_block, Index key_block) -> double& {
      return result_.block_mass[static_cast<std::size_t>((h * query_blocks + query_block) * key_blocks + key_block)];
    };
    for_keys([&](const Array& k, const Array&, Range keys) {
      for_visible(source_.mask, choice_.rows, keys, [&](std::size_t r, Index i, Range seen) {
        for (Index h = 0; h < s_.query_heads; ++h)
          for (Index j = seen.begin; j < seen.end; ++j) {
            const double lse = result_.lse[r * heads + static_cast<std::size_t>(h)];
            const double p = lse == nothing ? 0.0 : std::exp(score(r, h, k, j - keys.begin) - lse);
            result_.received[static_cast<std::size_t>(j * s_.query_heads + h)] += p;
            if (block > 0) map(h, i / block, j / block) += p;
          }
      });
    });
    for (Index h = 0; h < s_.query_heads; ++h)  // the mean over the queries of a block that see something
      for (Index b = 0; b < query_blocks; ++b) {
        double sees = 0;
        for (Index i = b * block; i < std::min(queries, (b + 1) * block); ++i)
          sees += result_.lse[static_cast<std::size_t>(i) * heads + static_cast<std::size_t>(h)] == nothing ? 0 : 1;
        for (Index c = 0; c < key_blocks; ++c) map(h, b, c) /= std::max(1.0, sees);
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
    std::vector<double> dq_size(result_.dq.size()), dk_size(result_.dk.size()), dv_size(result_.dv.size());
    for_keys([&](const Array& k, const Array& v, Range keys) {
      for_visible(source_.mask, choice_.rows, keys, [&](std::size_t r, Index, Range seen) {
        for (std::size_t h = 0; h < heads; ++h) {
          const auto head = static_cast<Index>(h), row = static_cast<Index>(r);
          const double* q = q_.rows().at<const double>(row, head);
          const double* d = dout.rows().at<const double>(row, head);
          const double lse = result_.lse[r * heads + h];
          const std::size_t out_at = (r * heads + h) * value_channels;
          const double delta = dot(d, &result_.out[out_at], s_.value_channels),
                       delta_size = size_of_dot(d, &sizes_[out_at], s_.value_channels);
          if (lse == nothing) continue;
          for (Index j = seen.begin; j < seen.end; ++j) {
            const Index g = head / s_.group();
            const double* key = k.rows().at<const double>(j - keys.begin, g);
            const double* value = v.rows().at<const double>(j - keys.begin, g);
            const double p = std::exp(score(r, head, k, j - keys.begin) - lse), weight = s_.softmax_scale * p;
            const double ds = weight * (dot(d, value, s_.value_channels) - delta),
                         size = weight * (size_of_dot(d, value, s_.value_channels) + delta_size);
            const std::size_t row_at = (r * heads + h) * channels,
                              at = static_cast<std::size_t>(j) * kv_heads + static_cast<std::size_t>(g);
            for (std::size_t c = 0; c < channels; ++c) add(result_.dq, dq_size, row_at + c, ds, size, key[c]);
            if (!all) continue;
            for (std::size_t c = 0; c < channels; ++c) add(result_.dk, dk_size, at * channels + c, ds, size, q[c]);
            for (std::size_t c = 0; c < value_channels; ++c)
              add(result_.dv, dv_size, at * value_channels + c, p, p, d[c]);
          }
        }
      });
    });
    result_.magnitudes.dq = largest(dq_size);
    result_.magnitudes.dk = largest(dk_size);
    result_.magnitudes.dv = largest(dv_size);
  }

  static void add(std::vector<double>& sums, std::vector<double>& sizes, std::size_t at, double weight, double size,
                  double x) {
    sums[at] += weight * x;
    sizes[at] += size * std::abs(x);
  }

  const RowSource& source_;
  const AttentionShape s_;
  const RecomputeChoice& choice_;
  std::vector<Run> runs_;
  Array q_;
  std::vector<RowState> states_;
  std::vector<double> sizes_;  // sums of |p v|, as result_.out
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
  return {forward, forward + rounding, coarse * 5e-6, coarse * 1e-6 + 2 * score_error + std::max(rounding, weights)};
}

Recomputed recompute(const RowSource& source, const RecomputeChoice& choice) {
  return Recomputation(source, choice).result();
}

}  // namespace annulus::app

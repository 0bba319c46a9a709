#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>

#include "kernel/support.hpp"

// How far a tier may be from the naive float64 kernel on the same (rounded) inputs, pass by pass.
//
// Forward bound, relative to the row's largest sum of |p v| (relative to |out| nothing can hold: out may cancel to 0).
// With u = 2^-24 and scores of size 1: a score is a sum of d products, added up in blocks of B = 64 channels from zero; a
// block's partial sums grow to sqrt(B), so after the scale 1/sqrt(d) the score's error has a standard deviation of
// u sqrt(B)/3, and the sums of blocks add u sqrt(d/B)/3: at most 3 u up to d = 512. Where one key dominates a row it does
// not average out, and four deviations are 11 u. The exponential adds 2 u, the sums of a chunk sqrt(128)/3 u = 4 u; sums
// of chunks are added in two levels, so that the number of keys hardly counts: 17 u = 1e-6. The score's part grows with
// the scores, whatever is done after them: with scores of size S the bound is S times as large.

namespace annulus::test {

inline constexpr double forward_bound = 1e-6, gradient_bound = 5e-6;

/// What a kernel's forward may err by more, relative to the sums of |p v|: where P is rounded to bf16, half a unit in its
/// last place; where f16 comes as two bf16 terms, 2^-17 for the rounding of P's second and as much for the product of the
/// second terms, which is left out.
inline double rounding_of_p(const Kernel& kernel) {
  const DType type = kernel.problem().type;
  if (kernel.name().ends_with("-bf16")) return type == DType::bf16 ? 0x1p-8 : 0;
  return kernel.name().ends_with("-split") && type == DType::f16 ? 0x1p-16 : 0;
}

/// How much coarser everything is where f32 numbers are sums of two bf16 terms, to 2^-17, and products of second terms are
/// left out. Errors of 2e-5 in the mean, three times as much at most, times the size of the scores as in forward_bound.
inline double coarseness(const Kernel& kernel) {
  return kernel.name().ends_with("-fast") && kernel.problem().type != DType::bf16 ? 60 : 1;
}

/// The same of P and dS in backward, relative to the sums of |P^T dO| and so on; 1 % is for what else makes them inexact.
/// With f16 inputs tiles take two bf16 numbers for one, which leaves 2^-16, and skip the product of the smaller ones.
inline double rounding_of_weights(const Kernel& kernel) {
  const DType type = kernel.problem().type;
  if (kernel.name().find("-amx-") == std::string_view::npos) return 1.01 * rounding_of_p(kernel);
  return type == DType::bf16 ? 1.01 * 0x1p-8 : type == DType::f16 ? 0x1p-15 : 0;
}

struct ForwardResult {
  PartialSheets partial;
  Sheet lse;
};

inline ForwardResult forward_by(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Rows& v,
                                Index gap = 0) {
  const Problem& p = in.problem;
  ForwardResult r{{kernel.accumulator(), in.queries(), p.query_heads, p.value_channels, gap},
                  {kernel.accumulator(), in.queries(), p.query_heads, 1}};
  kernel.forward(tiles, in.q, {in.k, v}, r.partial.view());
  return r;
}

/// What an exact kernel finds, and the sums of |p v| that errors are measured against.
struct Truth {
  Truth(std::span<const Tile> tiles, const Inputs& in)
      : kernel(make_reference_kernel(in.problem)),
        forward(forward_by(*kernel, tiles, in, in.v)),
        magnitude(forward),
        delta(DType::f64, in.queries(), in.problem.query_heads, 1) {
    Sheet absolute(in.v);
    absolute.each([&](Index i, Index h, Index c) { return std::abs(in.v.at(i, h, c)); });
    magnitude = Sheets(forward_by(*kernel, tiles, in, absolute));
    finish(forward.partial.view(), forward.lse);
    row_dot(in.dout, forward.partial.out, delta);
  }
  struct Sheets {  // so that a result can be replaced
    explicit Sheets(const ForwardResult& r) : value(std::make_unique<ForwardResult>(r)) {
      finish(value->partial.view(), value->lse);
    }
    Sheets& operator=(Sheets&&) = default;
    std::unique_ptr<ForwardResult> value;
  };
  std::unique_ptr<Kernel> kernel;
  ForwardResult forward;
  Sheets magnitude;
  Sheet delta;
};

inline void expect_forward(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Truth& truth,
                           double at_least = 0) {
  const Problem& p = in.problem;
  const double bound = std::max(at_least, forward_bound) * coarseness(kernel);
  ForwardResult result = forward_by(kernel, tiles, in, in.v, 7);
  finish(result.partial.view(), result.lse);
  for (Index i = 0; i < in.queries(); ++i)
    for (Index h = 0; h < p.query_heads; ++h) {
      const double lse = truth.forward.lse.at(i, h);
      if (lse == minus_infinity) {
        EXPECT_EQ(result.lse.at(i, h), minus_infinity) << "row " << i << " head " << h;
      } else {
        EXPECT_NEAR(result.lse.at(i, h), lse, bound * (2 + std::abs(lse))) << "row " << i << " head " << h;
      }
      double error = 0, high = 0;
      for (Index c = 0; c < p.value_channels; ++c) {
        const double difference = std::abs(result.partial.out.at(i, h, c) - truth.forward.partial.out.at(i, h, c));
        if (!(difference <= error)) error = difference;  // NaN sticks
        high = std::max(high, truth.magnitude.value->partial.out.at(i, h, c));
      }
      ASSERT_LE(error, (bound + rounding_of_p(kernel)) * high) << "row " << i << " head " << h;
    }
}

/// The f32 statistics of the forward pass that backward and observe start from.
inline Sheet rounded(const Rows& from, Index gap = 0) {
  Sheet to(DType::f32, from.tokens, from.heads, from.channels, gap);
  to.each([&](Index i, Index h, Index c) { return number(from, i, h, c); });
  return to;
}

struct GradientSheets {
  GradientSheets(DType type, const Inputs& in, Index gap)
      : dq(type, in.queries(), in.problem.query_heads, in.problem.channels, gap),
        dk(type, in.keys(), in.problem.kv_heads, in.problem.channels, gap),
        dv(type, in.keys(), in.problem.kv_heads, in.problem.value_channels, gap) {
    dq.fill(0.5);  // gradients are added to what is there
    dk.fill(-0.25);
    dv.fill(2);
  }
  Gradients view() const { return {dq, dk, dv}; }
  Sheet dq, dk, dv;
};

// Errors against the largest gradient, and against the rounding of dP = dO V^T, which dP - delta may cancel: u times
// its largest sum of magnitudes, times what it is multiplied by; `coarse` times as much where f32 keeps 16 bits. rounded: the magnitudes of what is summed, and by how
// much each of its terms may be rounded.
inline void expect_gradient(const Sheet& got, const Sheet& truth, double dp_rounding, const Sheet& magnitude,
                            double rounded, double coarse, const char* name) {
  const double bound = coarse * (gradient_bound * largest(truth) + dp_rounding);
  const Rows& rows = got.rows();
  for (Index i = 0; i < rows.tokens; ++i)
    for (Index h = 0; h < rows.heads; ++h)
      for (Index c = 0; c < rows.channels; ++c)
        ASSERT_NEAR(got.at(i, h, c), truth.at(i, h, c), bound + rounded * magnitude.at(i, h, c))
            << name << " row " << i << " head " << h << " channel " << c;
}

/// Gradients with round(P) and round(dS) in the place of P and dS, of products that `size` has passed.
template <class Round, class Size>
GradientSheets dense_gradients(std::span<const Tile> tiles, const Inputs& in, const Truth& truth, const Round& round,
                               const Size& size) {
  GradientSheets into(DType::f64, in, 0);
  for (Sheet* sheet : {&into.dq, &into.dk, &into.dv}) sheet->fill(0);
  const Problem& p = in.problem;
  const auto dot = [](const Sheet& a, Index i, Index h, const Sheet& b, Index j, Index g) {
    double sum = 0;
    for (Index c = 0; c < a.rows().channels; ++c) sum += a.at(i, h, c) * b.at(j, g, c);
    return sum;
  };
  const auto add = [&](Sheet& sheet, Index i, Index h, double a, const Sheet& b, Index j, Index g) {
    for (Index c = 0; c < b.rows().channels; ++c) sheet.rows().at<double>(i, h)[c] += size(a * b.at(j, g, c));
  };
  for (const Tile& tile : tiles)
    for (Index n = 0; n < tile.q.count(); ++n)
      for (Index h = 0; h < p.query_heads; ++h) {
        const Index i = tile.q.begin + n, g = p.kv_head(h);
        const double lse = truth.forward.lse.at(i, h), delta = truth.delta.at(i, h);
        const Range keys = tile.keys_of(n);
        for (Index j = tile.k.begin + keys.begin; lse != minus_infinity && j < tile.k.begin + keys.end; ++j) {
          const double weight = std::exp(p.softmax_scale * dot(in.q, i, h, in.k, j, g) - lse);
          const double ds = p.softmax_scale * round(weight * (dot(in.dout, i, h, in.v, j, g) - delta));
          add(into.dq, i, h, ds, in.k, j, g);
          add(into.dk, j, g, ds, in.q, i, h);
          add(into.dv, j, g, round(weight), in.dout, i, h);
        }
      }
  return into;
}

inline void expect_backward(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Truth& truth) {
  const Sheet lse = rounded(truth.forward.lse, 3), delta = rounded(truth.delta, 1);
  GradientSheets got(DType::f32, in, 4), exact(DType::f64, in, 0);
  kernel.backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
  truth.kernel->backward(tiles, {in.q, in.dout, truth.forward.lse, truth.delta}, {in.k, in.v}, exact.view());
  const double dp = static_cast<double>(in.problem.value_channels) * largest(in.dout) * largest(in.v);
  const double rounding = 0x1p-24 * dp * in.problem.softmax_scale;
  const double rounded_terms = rounding_of_weights(kernel);
  const double coarse = in.problem.type == DType::f32 ? coarseness(kernel) : 1;
  const std::span<const Tile> counted = rounded_terms > 0 ? tiles : std::span<const Tile>();
  const GradientSheets magnitude = dense_gradients(
      counted, in, truth, [](double x) { return x; }, [](double x) { return std::abs(x); });
  expect_gradient(got.dq, exact.dq, rounding * largest(in.k), magnitude.dq, rounded_terms, coarse, "dq");
  expect_gradient(got.dk, exact.dk, rounding * largest(in.q), magnitude.dk, rounded_terms, coarse, "dk");
  expect_gradient(got.dv, exact.dv, 0, magnitude.dv, rounded_terms, coarse, "dv");
}

struct ObservationSheets {
  ObservationSheets(DType type, const Inputs& in, Index tops, Index block, Index gap)
      : entropy(type, in.queries(), in.problem.query_heads, 1, gap),
        max_probability(entropy),
        sink_mass(entropy),
        mean_distance(entropy),
        received(type, in.keys(), in.problem.query_heads, 1, gap),
        top_score(type, in.queries(), in.problem.query_heads, tops, gap),
        top_index(static_cast<std::size_t>(in.queries() * in.problem.query_heads * tops), -1),
        block_tokens(block),
        query_blocks(ceil_div(in.queries(), block)),
        key_blocks(ceil_div(in.keys(), block)),
        block_mass(static_cast<std::size_t>(in.problem.query_heads * query_blocks * key_blocks)) {
    for (Sheet* sheet : {&entropy, &max_probability, &sink_mass, &mean_distance, &received}) sheet->fill(0);
    top_score.fill(minus_infinity);
  }
  Observation view() {
    return {.entropy = entropy,
            .max_probability = max_probability,
            .sink_mass = sink_mass,
            .mean_distance = mean_distance,
            .received = received,
            .top_score = top_score,
            .top_index = top_index,
            .block_mass = block_mass,
            .sink_tokens = 6,
            .block_tokens = block_tokens,
            .key_blocks = key_blocks,
            .query_blocks = query_blocks};
  }
  bool same_bits(const ObservationSheets& o) const {
    return entropy.same_bits(o.entropy) && max_probability.same_bits(o.max_probability) &&
           sink_mass.same_bits(o.sink_mass) && mean_distance.same_bits(o.mean_distance) &&
           received.same_bits(o.received) && top_score.same_bits(o.top_score) && top_index == o.top_index &&
           block_mass == o.block_mass;
  }
  Sheet entropy, max_probability, sink_mass, mean_distance, received, top_score;
  std::vector<Index> top_index;
  Index block_tokens, query_blocks, key_blocks;
  std::vector<double> block_mass;
};

inline void expect_near(const Sheet& got, const Sheet& truth, double bound, const char* name) {
  const Rows& rows = got.rows();
  for (Index i = 0; i < rows.tokens; ++i)
    for (Index h = 0; h < rows.heads; ++h)
      for (Index c = 0; c < rows.channels; ++c) {
        const double want = truth.at(i, h, c);
        if (std::isinf(want)) {
          ASSERT_EQ(got.at(i, h, c), want) << name << " row " << i << " head " << h;
        } else {
          ASSERT_NEAR(got.at(i, h, c), want, bound * (1 + std::abs(want))) << name << " row " << i << " head " << h;
        }
      }
}

inline void expect_observe(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Truth& truth,
                           Index block) {
  constexpr Index tops = 5;
  const Sheet lse = rounded(truth.forward.lse, 3);
  ObservationSheets got(DType::f32, in, tops, block, 2), exact(DType::f64, in, tops, block, 0);
  kernel.observe(tiles, in.q, in.k, lse, got.view());
  truth.kernel->observe(tiles, in.q, in.k, truth.forward.lse, exact.view());
  const double bound = 5e-6;  // scores err by 8 u, times an entropy's weight |lse - s| of up to 10
  expect_near(got.entropy, exact.entropy, bound, "entropy");
  expect_near(got.max_probability, exact.max_probability, bound, "max probability");
  expect_near(got.sink_mass, exact.sink_mass, bound, "sink mass");
  expect_near(got.mean_distance, exact.mean_distance, bound, "mean distance");
  expect_near(got.received, exact.received, bound, "received");
  expect_near(got.top_score, exact.top_score, bound, "top score");
  for (std::size_t n = 0; n < got.block_mass.size(); ++n)
    ASSERT_NEAR(got.block_mass[n], exact.block_mass[n], bound * (1 + exact.block_mass[n])) << "map cell " << n;
  for (std::size_t n = 0; n < got.top_index.size(); ++n) {
    if (got.top_index[n] == exact.top_index[n]) continue;
    // scores that are closer than their rounding may change places
    const auto cell = static_cast<Index>(n);
    const Index heads = in.problem.query_heads, i = cell / tops / heads, h = cell / tops % heads, c = cell % tops;
    const double s = exact.top_score.at(i, h, c);
    const double above = c > 0 ? exact.top_score.at(i, h, c - 1) : s + 1;
    const double below = c + 1 < tops ? exact.top_score.at(i, h, c + 1) : s;
    EXPECT_LT(std::min(above - s, s - below), 4 * bound * (1 + std::abs(s))) << "top index row " << i << " head " << h;
  }
}

inline Problem problem_of(Index channels, Index value_channels, DType type) {
  return {.query_heads = 3,
          .kv_heads = 2,
          .channels = channels,
          .value_channels = value_channels,
          .group = 2,
          .phase = 1,
          .type = type,
          .softmax_scale = 1 / std::sqrt(static_cast<double>(channels)),
          .query_shift = 4};
}

}  // namespace annulus::test

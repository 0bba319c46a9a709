#pragma once
#include "kernel/agreement.hpp"
#include "support/sanitized.hpp"

// How far tensor-core kernels may be from the float64 reference on the same 16-bit inputs. Probabilities, and dS in
// backward, are rounded to 16 bits before they meet V, K, Q or dO: each term of a sum is off by at most a unit of
// itself, and the sum by at most a unit of its sum of magnitudes. What is below 2^-14 in f16 is off by up to 2^-25; of
// backward's P, and of dS over the largest that it can be, that is 2^-40, for they are rounded as 2^15 times themselves. All
// else is f32, and lse knows no other rounding.

namespace annulus::test {

// Half the distance from 1 to the next number; the last percent is for what is f32.
inline double unit(DType type) { return 1.01 * (type == DType::bf16 ? 0x1p-8 : 0x1p-11); }

// What 2^-40 is in units of f16, so that it can be counted as magnitude.
constexpr double tiny = 0x1p-29;

inline void expect_rounded_forward(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in) {
  const Truth truth(tiles, in);
  // probabilities are taken against the largest, so that each tiny one is off by 2^-25 of at most the largest value
  expect_forward(kernel, tiles, in, truth,
                 unit(in.problem.type) + 0x1p-25 * static_cast<double>(in.keys()) * largest(in.v));
  ForwardResult result = forward_by(kernel, tiles, in, in.v, 3);
  finish(result.partial.view(), result.lse);
  for (Index i = 0; i < in.queries(); ++i)
    for (Index h = 0; h < in.problem.query_heads; ++h) {
      const double lse = truth.forward.lse.at(i, h);
      if (lse != minus_infinity) {
        EXPECT_NEAR(result.lse.at(i, h), lse, forward_bound * (2 + std::abs(lse)));
      }
    }
}

// Sums of |dS k|, |dS q| and |p dO|: what the gradients' errors are measured against. dP - delta may cancel, and dP is
// rounded to f32 about 2^-22 of its sum of magnitudes: 2^-10 units or less.
struct Magnitudes : GradientSheets {
  Magnitudes(std::span<const Tile> tiles, const Inputs& in, const Truth& truth) : GradientSheets(DType::f64, in, 0) {
    const Problem& p = in.problem;
    // twice what bounds |dP - delta|, since the power of two above it counts
    const double largest_ds =
        2 * (static_cast<double>(p.value_channels) * largest(in.dout) * largest(in.v) + largest(truth.delta));
    for (Sheet* sheet : {&dq, &dk, &dv}) sheet->fill(0);
    const auto add = [](Sheet& sheet, Index row, Index head, Index c, double x) {
      sheet.set(row, head, c, sheet.at(row, head, c) + std::abs(x));
    };
    for (const Tile& tile : tiles)
      for (Index i = tile.q.begin; i < tile.q.end; ++i)
        for (Index h = 0; h < p.query_heads; ++h) {
          const Range keys = tile.keys_of(i - tile.q.begin);
          const Index g = p.kv_head(h);
          if (truth.forward.lse.at(i, h) == minus_infinity) continue;
          for (Index j = tile.k.begin + keys.begin; j < tile.k.begin + keys.end; ++j) {
            double s = 0, dp = 0, rounded_dp = std::abs(truth.delta.at(i, h));
            for (Index c = 0; c < p.channels; ++c) s += in.q.at(i, h, c) * in.k.at(j, g, c);
            for (Index c = 0; c < p.value_channels; ++c) {
              const double term = in.dout.at(i, h, c) * in.v.at(j, g, c);
              dp += term;
              rounded_dp += std::abs(term);
            }
            const double weight = std::exp(p.softmax_scale * s - truth.forward.lse.at(i, h));
            const double ds = p.softmax_scale * (weight * (std::abs(dp - truth.delta.at(i, h)) + 0x1p-10 * rounded_dp) +
                                                 tiny * largest_ds);
            for (Index c = 0; c < p.channels; ++c) {
              add(dq, i, h, c, ds * in.k.at(j, g, c));
              add(dk, j, g, c, ds * in.q.at(i, h, c));
            }
            for (Index c = 0; c < p.value_channels; ++c) add(dv, j, g, c, (weight + tiny) * in.dout.at(i, h, c));
          }
        }
  }
};

inline void expect_close(const Sheet& got, const Sheet& truth, const Sheet& magnitude, double relative,
                         const char* name, double absolute = 1e-6) {
  const Rows& rows = got.rows();
  for (Index i = 0; i < rows.tokens; ++i)
    for (Index h = 0; h < rows.heads; ++h)
      for (Index c = 0; c < rows.channels; ++c)
        ASSERT_NEAR(got.at(i, h, c), truth.at(i, h, c), relative * magnitude.at(i, h, c) + absolute)
            << name << " row " << i << " head " << h << " channel " << c;
}

inline void expect_rounded_backward(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in) {
  const Truth truth(tiles, in);
  const Sheet lse = rounded(truth.forward.lse, 3), delta = rounded(truth.delta, 1);
  GradientSheets got(DType::f32, in, 4), exact(DType::f64, in, 0);
  kernel.backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
  truth.kernel->backward(tiles, {in.q, in.dout, truth.forward.lse, truth.delta}, {in.k, in.v}, exact.view());
  const Magnitudes magnitudes(tiles, in, truth);
  expect_close(got.dq, exact.dq, magnitudes.dq, unit(in.problem.type), "dq");
  expect_close(got.dk, exact.dk, magnitudes.dk, unit(in.problem.type), "dk");
  expect_close(got.dv, exact.dv, magnitudes.dv, unit(in.problem.type), "dv");
}

/// dout and v so small, or so large, that P of many keys and dS are beyond what f16 can hold. Row 0 has seen nothing, and its
/// dout and delta are anything.
template <class Make>
void expect_gradients_in_range(const Make& make, double dout, double v) {
  constexpr Index queries = 6, keys = sanitized ? 512 : 8192;
  const Problem problem{.channels = 16, .value_channels = 16, .type = DType::f16, .softmax_scale = 0.5};
  Inputs in(problem, queries, keys, 7, 1, {8, 8, 8, 8});
  in.dout.each([&](Index i, Index h, Index c) { return dout * in.dout.at(i, h, c); });
  in.v.each([&](Index j, Index h, Index c) { return v * in.v.at(j, h, c); });
  const std::vector<Tile> tiles{tile({0, queries}, {0, keys})};
  Truth truth(tiles, in);
  truth.forward.lse.set(0, 0, 0, minus_infinity);
  GradientSheets got(DType::f32, in, 0), exact(DType::f64, in, 0);
  for (Sheet* sheet : {&got.dq, &got.dk, &got.dv, &exact.dq, &exact.dk, &exact.dv}) sheet->fill(0);
  truth.kernel->backward(tiles, {in.q, in.dout, truth.forward.lse, truth.delta}, {in.k, in.v}, exact.view());
  const Magnitudes magnitudes(tiles, in, truth);
  Sheet spoilt(in.dout), delta = rounded(truth.delta);
  for (Index c = 0; c < problem.value_channels; ++c) spoilt.set(0, 0, c, 60000);
  delta.set(0, 0, 0, 1e30);
  make(problem)->backward(tiles, {in.q, spoilt, rounded(truth.forward.lse), delta}, {in.k, in.v}, got.view());
  expect_close(got.dq, exact.dq, magnitudes.dq, unit(DType::f16), "dq", 0);
  expect_close(got.dk, exact.dk, magnitudes.dk, unit(DType::f16), "dk", 0);
  expect_close(got.dv, exact.dv, magnitudes.dv, unit(DType::f16), "dv", 0);
}

template <class Make>
void expect_the_range_of_f16_to_suffice(const Make& make) {
  expect_gradients_in_range(make, 1e-3, 1);
  expect_gradients_in_range(make, 3000, 300);
}

/// Keys that are all alike, so that the first one's maximum stays for ever: what is kept from step to step must be kept to
/// the last bit, or sums drift by as much in every step. Logits of 400 make a bit count.
template <class Make>
void expect_no_drift(const Make& make) {
  constexpr Index keys = sanitized ? 1024 : 16384;
  const Problem problem{.channels = 8, .value_channels = 8, .type = DType::f16, .softmax_scale = 1};
  Inputs in(problem, 1, keys, 1, 1, {8, 8, 8, 8});
  for (Sheet* sheet : {&in.q, &in.k}) sheet->fill(7.1);
  in.v.each([](Index j, Index, Index) { return j < keys / 2 ? 1 : 0; });
  const double s = 8 * in.q.at(0, 0) * in.k.at(0, 0);
  const std::vector<Tile> tiles{tile({0, 1}, {0, keys})};
  ForwardResult result = forward_by(*make(problem), tiles, in, in.v);
  finish(result.partial.view(), result.lse);
  const double bound = 4 * 0x1p-24 * s;  // base and lse are rounded, once
  EXPECT_NEAR(result.lse.at(0, 0), s + std::log(static_cast<double>(keys)), bound);
  for (Index c = 0; c < 8; ++c) EXPECT_NEAR(result.partial.out.at(0, 0, c), 0.5, bound);
}

}  // namespace annulus::test

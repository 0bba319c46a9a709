#include <gtest/gtest.h>

#include "kernel/agreement.hpp"
#include "kernel/cuda/emulated.hpp"
#include "kernel/cuda/simt_kernel.hpp"
#include "support/sanitized.hpp"

// The source of the plain GPU kernels, run thread by thread on the CPU, judged as the CPU kernels are.

namespace annulus::test {
namespace {

std::unique_ptr<Kernel> emulated(const Problem& problem) {
  return std::make_unique<cuda::SimtKernel<EmulatedLauncher>>(problem, EmulatedLauncher{});
}

// Sanitizers make a fiber's steps slow: they see one type, whose loads are the least plain.
std::vector<DType> types() {
  if (sanitized) return {DType::bf16};
  return {DType::f32, DType::bf16, DType::f16};
}

class EmulatedSimt : public testing::TestWithParam<std::tuple<std::size_t, DType>> {};

TEST_P(EmulatedSimt, AgreesWithTheReferenceInEveryLayout) {
  const Layout layout = layouts()[std::get<0>(GetParam())];
  for (const auto& [channels, value_channels] : {std::pair<Index, Index>{40, 24}, {3, 70}}) {
    if (sanitized && channels == 3) continue;
    const Inputs in(problem_of(channels, value_channels, std::get<1>(GetParam())), layout.queries, layout.keys, 7);
    const Truth truth(layout.tiles, in);
    const auto kernel = emulated(in.problem);
    expect_forward(*kernel, layout.tiles, in, truth);
    expect_backward(*kernel, layout.tiles, in, truth);
    expect_observe(*kernel, layout.tiles, in, truth, channels == 3 ? 1 : 16);
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, EmulatedSimt,
                         testing::Combine(testing::Range(std::size_t{0}, layouts().size()), testing::ValuesIn(types())),
                         [](const auto& chosen) {
                           return sentence("layout", std::get<0>(chosen.param), name_of(std::get<1>(chosen.param)));
                         });

TEST(EmulatedSimtKernel, StateCarriesAcrossCallsInAnyOrder) {
  const Inputs in(problem_of(32, 24, DType::f32), 100, 300, 13);
  const std::vector<Tile> all{tile({0, 100}, {0, 300}, {-far, 200})};
  const Truth truth(all, in);
  const auto kernel = emulated(in.problem);
  ForwardResult carried{{DType::f32, 100, 3, 24}, {DType::f32, 100, 3, 1}};
  kernel->reset(carried.partial.view());
  for (const Range keys : {Range{150, 300}, Range{0, 70}, Range{70, 150}}) {
    const std::vector<Tile> part{tile({0, 100}, keys, {-far, 200 - keys.begin})};
    kernel->forward(part, in.q, {in.k, in.v}, carried.partial.view());
  }
  kernel->finish(carried.partial.view(), carried.lse);
  for (Index i = 0; i < 100; ++i)
    for (Index h = 0; h < 3; ++h) {
      EXPECT_NEAR(carried.lse.at(i, h), truth.forward.lse.at(i, h), 1e-5);
      for (Index c = 0; c < 24; ++c)
        ASSERT_NEAR(carried.partial.out.at(i, h, c), truth.forward.partial.out.at(i, h, c),
                    forward_bound * truth.magnitude.value->partial.out.at(i, h, c) + 1e-7);
    }
}

TEST(EmulatedSimtKernel, MergesAsTheCpuDoes) {
  const Inputs in(problem_of(8, 24, DType::bf16), 50, 90, 5);
  const auto kernel = emulated(in.problem);
  // rows seen by one side, by both and by none
  const std::vector<Tile> left{tile({0, 30}, {0, 40})}, right{tile({20, 45}, {40, 90})};
  const ForwardResult a = forward_by(*kernel, left, in, in.v);
  ForwardResult b = forward_by(*kernel, right, in, in.v), c = b;
  kernel->merge(a.partial.view(), b.partial.view());
  merge(a.partial.view(), c.partial.view());
  EXPECT_EQ(b.partial.top.at(47, 1), minus_infinity);
  for (Index i = 0; i < 50; ++i)
    for (Index h = 0; h < 3; ++h) {
      EXPECT_EQ(b.partial.top.at(i, h), c.partial.top.at(i, h));
      EXPECT_NEAR(b.partial.sum.at(i, h), c.partial.sum.at(i, h), 1e-6 * c.partial.sum.at(i, h));
      for (Index x = 0; x < 24; ++x)
        ASSERT_NEAR(b.partial.out.at(i, h, x), c.partial.out.at(i, h, x), 1e-6 * (c.partial.sum.at(i, h) + 1) * 4);
    }
}

TEST(EmulatedSimtKernel, FinishesDotsAndResetsAsTheCpuDoes) {
  const Inputs in(problem_of(8, 24, DType::bf16), 50, 40, 5);
  const std::vector<Tile> tiles{tile({10, 50}, {0, 40}, {-far, 0})};  // the first rows see nothing
  const auto kernel = emulated(in.problem);
  ForwardResult a = forward_by(*kernel, tiles, in, in.v), b = a;
  kernel->finish(a.partial.view(), a.lse);
  finish(b.partial.view(), b.lse);
  EXPECT_TRUE(a.partial.out.same_bits(b.partial.out));
  EXPECT_TRUE(a.lse.same_bits(b.lse));
  EXPECT_EQ(a.lse.at(3, 1), minus_infinity);
  EXPECT_EQ(a.partial.out.at(3, 1), 0);
  Sheet delta(DType::f32, 50, 3, 1), exact = delta;
  kernel->row_dot(in.dout, a.partial.out, delta);
  row_dot(in.dout, a.partial.out, exact);
  for (Index i = 0; i < 50; ++i)
    for (Index h = 0; h < 3; ++h) EXPECT_NEAR(delta.at(i, h), exact.at(i, h), 1e-6 * (1 + std::abs(exact.at(i, h))));
}

// Values, and in backward whatever else sums are made of.
TEST(EmulatedSimtKernel, InfinitiesReachOnlyRowsThatSeeThem) {
  const double infinite = std::numeric_limits<double>::infinity();
  Inputs in(problem_of(8, 24, DType::f32), 70, 200, 35);
  const std::vector<Tile> tiles{tile({0, 70}, {0, 200}, {-20, 100})};
  for (const Index key : {10, 60, 130, 180}) in.v.set(key, 0, key % 24, key % 4 == 0 ? infinite : -infinite);
  const Truth truth(tiles, in);
  ForwardResult result = forward_by(*emulated(in.problem), tiles, in, in.v);
  finish(result.partial.view(), result.lse);
  const auto expect_the_same = [](double got, double exact, Index i) {
    if (std::isfinite(exact)) {
      ASSERT_NEAR(got, exact, 1e-4) << "row " << i;
    } else {
      ASSERT_TRUE(got == exact || (std::isnan(got) && std::isnan(exact))) << "row " << i << ": " << got;
    }
  };
  for (Index i = 0; i < 70; ++i)
    for (Index c = 0; c < 24; ++c)
      expect_the_same(result.partial.out.at(i, 0, c), truth.forward.partial.out.at(i, 0, c), i);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  in.dout.set(40, 1, 3, infinite);
  in.q.set(50, 2, 3, infinite);
  GradientSheets got(DType::f32, in, 0), exact(DType::f64, in, 0);
  emulated(in.problem)->backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
  truth.kernel->backward(tiles, {in.q, in.dout, truth.forward.lse, truth.delta}, {in.k, in.v}, exact.view());
  for (Index i = 0; i < 200; ++i)
    for (Index c = 0; c < 8; ++c) {
      if (i < 70) expect_the_same(got.dq.at(i, 1, c), exact.dq.at(i, 1, c), i);
      expect_the_same(got.dk.at(i, 1, c), exact.dk.at(i, 1, c), i);
      expect_the_same(got.dv.at(i, 0, c), exact.dv.at(i, 0, c), i);
    }
}

TEST(EmulatedSimtKernel, WhatIsNotANumberShows) {
  Inputs in(problem_of(8, 8, DType::f32), 20, 70, 5);
  in.q.set(3, 1, 2, std::numeric_limits<double>::quiet_NaN());
  in.k.set(66, 0, 1, std::numeric_limits<double>::infinity());
  const std::vector<Tile> tiles{tile({0, 20}, {0, 70})};
  ForwardResult result = forward_by(*emulated(in.problem), tiles, in, in.v);
  finish(result.partial.view(), result.lse);
  EXPECT_TRUE(std::isnan(result.lse.at(3, 1)));
  for (Index i = 0; i < 20; ++i) {
    if (in.q.at(i, 0, 1) > 0) {
      EXPECT_TRUE(std::isnan(result.lse.at(i, 0))) << i;
    }
    if (i != 3) {
      EXPECT_FALSE(std::isnan(result.lse.at(i, 2))) << i;
    }
  }
}

}  // namespace
}  // namespace annulus::test

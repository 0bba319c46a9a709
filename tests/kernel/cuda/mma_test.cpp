#include "kernel/cuda_emulator/cuda.hpp"
// the words of CUDA first
#include "kernel/cuda/emulated.hpp"
#include "kernel/cuda/mma_kernel.hpp"
#include "kernel/cuda/rounded_agreement.hpp"

// The tensor-core kernels, emulated, against the float64 reference.

namespace annulus::test {
namespace {

std::unique_ptr<Kernel> emulated(const Problem& problem, unsigned seed = 1) {
  const EmulatedLauncher launcher{seed};
  return std::make_unique<cuda::MmaKernel<EmulatedLauncher>>(
      problem, launcher, std::make_unique<cuda::SimtKernel<EmulatedLauncher>>(problem, launcher));
}

constexpr Gaps aligned{8, 16, 8, 24};  // rows begin at multiples of 16 bytes where channels are multiples of 8

class MmaChannels : public testing::TestWithParam<std::pair<Index, Index>> {
 protected:
  template <class Expect>
  void in_every_layout(const Expect& expect) {
    const auto [channels, value_channels] = GetParam();
    unsigned seed = static_cast<unsigned>(channels);
    for (const Layout& layout : layouts()) {
      if (seed++ % 2 == 0 && channels + value_channels > 160) continue;  // these are slow
      const DType type = seed % 4 < 2 ? DType::bf16 : DType::f16;
      const Inputs in(problem_of(channels, value_channels, type), layout.queries, layout.keys, seed, 1,
                      seed % 3 == 0 ? Gaps() : aligned);
      SCOPED_TRACE(sentence(layout.name, ", ", name_of(type), ", seed ", seed));
      const auto kernel = emulated(in.problem, seed);
      expect(*kernel, layout.tiles, in);
      if (HasFatalFailure()) return;
    }
  }
};

TEST_P(MmaChannels, ForwardAgreesWithTheReferenceInEveryLayout) { in_every_layout(expect_rounded_forward); }
TEST_P(MmaChannels, BackwardAgreesWithTheReferenceInEveryLayout) { in_every_layout(expect_rounded_backward); }

INSTANTIATE_TEST_SUITE_P(Cuda, MmaChannels,
                         testing::Values(std::pair<Index, Index>{8, 8}, std::pair<Index, Index>{20, 33},
                                         std::pair<Index, Index>{64, 64}, std::pair<Index, Index>{80, 72},
                                         std::pair<Index, Index>{128, 128}, std::pair<Index, Index>{100, 120},
                                         std::pair<Index, Index>{192, 128}, std::pair<Index, Index>{17, 192},
                                         std::pair<Index, Index>{256, 256}),
                         [](const auto& pair) {
                           return "c" + std::to_string(pair.param.first) + "v" + std::to_string(pair.param.second);
                         });

TEST(Mma, StateCarriesAcrossCallsInAnyOrder) {
  const Inputs in(problem_of(32, 24, DType::f16), 70, 300, 13);
  const std::vector<Tile> all{tile({0, 70}, {0, 300}, {-far, 200})};
  const Truth truth(all, in);
  const auto kernel = emulated(in.problem);
  ForwardResult carried{{DType::f32, 70, 3, 24}, {DType::f32, 70, 3, 1}};
  for (const Range keys : {Range{150, 300}, Range{0, 70}, Range{70, 150}}) {
    const std::vector<Tile> part{tile({0, 70}, keys, {-far, 200 - keys.begin})};
    kernel->forward(part, in.q, {in.k, in.v}, carried.partial.view());
  }
  finish(carried.partial.view(), carried.lse);
  for (Index i = 0; i < 70; ++i)
    for (Index h = 0; h < 3; ++h) {
      EXPECT_NEAR(carried.lse.at(i, h), truth.forward.lse.at(i, h), 1e-5);
      for (Index c = 0; c < 24; ++c)
        ASSERT_NEAR(carried.partial.out.at(i, h, c), truth.forward.partial.out.at(i, h, c),
                    1.2 * unit(DType::f16) * truth.magnitude.value->partial.out.at(i, h, c));
    }
}

TEST(Mma, NothingDriftsWhileTheMaximumStays) {
  expect_no_drift([](const Problem& p) { return emulated(p); });
}

TEST(Mma, GradientsOfAnySizeFitTheRangeOfF16) {
  expect_the_range_of_f16_to_suffice([](const Problem& p) { return emulated(p); });
}

TEST(Mma, TheOrderInWhichThreadsRunChangesNoBit) {
  const Layout layout = layouts().back();
  const Inputs in(problem_of(40, 24, DType::bf16), layout.queries, layout.keys, 15, 1, aligned);
  const Truth truth(layout.tiles, in);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  const auto kernel = emulated(in.problem), other = emulated(in.problem, 77);
  PartialSheets partial(DType::f32, layout.queries, 3, 24), again = partial;
  GradientSheets gradients(DType::f32, in, 0), gradients_again = gradients;
  kernel->forward(layout.tiles, in.q, {in.k, in.v}, partial.view());
  other->forward(layout.tiles, in.q, {in.k, in.v}, again.view());
  kernel->backward(layout.tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, gradients.view());
  other->backward(layout.tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, gradients_again.view());
  EXPECT_TRUE(partial.same_bits(again));
  EXPECT_TRUE(gradients.dq.same_bits(gradients_again.dq));
  EXPECT_TRUE(gradients.dk.same_bits(gradients_again.dk));
  EXPECT_TRUE(gradients.dv.same_bits(gradients_again.dv));
}

TEST(Mma, OnlyRowsOfTheTilesAreReadAndWritten) {
  const std::vector<Tile> tiles{tile({20, 61}, {10, 50}, {-30, 12}), tile({61, 64}, {70, 90})};
  const Inputs in(problem_of(24, 16, DType::bf16), 90, 100, 16, 1, aligned);
  const Truth truth(tiles, in);
  const auto kernel = emulated(in.problem);
  PartialSheets partial(DType::f32, 90, 3, 16, 2);
  GradientSheets gradients(DType::f32, in, 2);
  const auto poison = [](Sheet& sheet, const std::vector<bool>& hit) {
    sheet.each([&](Index i, Index h, Index c) {
      return hit[static_cast<std::size_t>(i)] ? sheet.at(i, h, c) : std::numeric_limits<double>::quiet_NaN();
    });
  };
  const std::vector<bool> q_hit = touched(tiles, 90), k_hit = touched(tiles, 100, true);
  Inputs poisoned(in);
  for (Sheet* sheet : {&partial.out, &partial.top, &partial.sum, &gradients.dq, &poisoned.q, &poisoned.dout})
    poison(*sheet, q_hit);
  for (Sheet* sheet : {&gradients.dk, &gradients.dv, &poisoned.k, &poisoned.v}) poison(*sheet, k_hit);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  kernel->forward(tiles, poisoned.q, {poisoned.k, poisoned.v}, partial.view());
  kernel->backward(tiles, {poisoned.q, poisoned.dout, lse, delta}, {poisoned.k, poisoned.v}, gradients.view());
  const auto expect_only = [](const Sheet& sheet, const std::vector<bool>& hit, const char* name) {
    const Rows& rows = sheet.rows();
    for (Index i = 0; i < rows.tokens; ++i)
      for (Index h = 0; h < rows.heads; ++h)
        for (Index c = 0; c < rows.channels; ++c)
          ASSERT_EQ(std::isnan(sheet.at(i, h, c)), !hit[static_cast<std::size_t>(i)]) << name << " row " << i;
  };
  expect_only(partial.out, q_hit, "out");
  expect_only(partial.top, q_hit, "top");
  expect_only(partial.sum, q_hit, "sum");
  expect_only(gradients.dq, q_hit, "dq");
  expect_only(gradients.dk, k_hit, "dk");
  expect_only(gradients.dv, k_hit, "dv");
}

TEST(Mma, WhatIsNotANumberStaysSo) {
  const std::vector<Tile> tiles{tile({0, 20}, {0, 30})};
  Inputs in(problem_of(16, 16, DType::bf16), 20, 30, 17);
  in.q.set(3, 1, 5, std::numeric_limits<double>::quiet_NaN());
  ForwardResult result = forward_by(*emulated(in.problem), tiles, in, in.v);
  finish(result.partial.view(), result.lse);
  for (Index i = 0; i < 20; ++i)
    for (Index h = 0; h < 3; ++h) {
      EXPECT_EQ(std::isnan(result.lse.at(i, h)), i == 3 && h == 1) << i << ", " << h;
      EXPECT_EQ(std::isnan(result.partial.out.at(i, h, 0)), i == 3 && h == 1) << i << ", " << h;
    }
}

TEST(Mma, RefusesWhatItCannotRunWithTheRule) {
  EXPECT_EQ(cuda_mma_refusal(problem_of(256, 256, DType::f16)), "");
  EXPECT_EQ(cuda_mma_refusal(problem_of(64, 64, DType::f32)), "tensor cores take bf16 and f16, not f32");
  EXPECT_EQ(cuda_mma_refusal(problem_of(64, 257, DType::bf16)),
            "channels must not exceed 256: channels = 64, value channels = 257");
  Problem negative = problem_of(64, 64, DType::bf16);
  negative.softmax_scale = -1;
  EXPECT_EQ(cuda_mma_refusal(negative), "the softmax scale must be positive: -1");
  EXPECT_THROW(emulated(negative), Error);
}

}  // namespace
}  // namespace annulus::test

#include "kernel/cuda_emulator/hopper.hpp"
// the words of CUDA first
#include "kernel/cuda/emulated.hpp"
#include "kernel/cuda/rounded_agreement.hpp"
#include "kernel/cuda/wgmma_kernel.hpp"

// The kernels for Hopper, emulated, judged as the other tensor-core kernels are.

namespace annulus::test {
namespace {

struct HopperLauncher : EmulatedLauncher {
  using EmulatedLauncher::EmulatedLauncher;
  cuda::TensorMap tensor_map(const Rows& rows, int box_rows) const { return {rows, box_rows}; }
};

/// Takes what the kernel under test should have done itself.
class Nobody final : public Kernel {
 public:
  explicit Nobody(const Problem& problem) : problem_(problem) {}
  std::string_view name() const override { return "nobody"; }
  const Problem& problem() const override { return problem_; }
  DType accumulator() const override { return DType::f32; }
  void forward(std::span<const Tile>, const Rows&, const KeyValue&, const Partial&) override { refuse("forward"); }
  void backward(std::span<const Tile>, const Saved&, const KeyValue&, const Gradients&) override { refuse("backward"); }
  void observe(std::span<const Tile>, const Rows&, const Rows&, const Rows&, const Observation&) override {
    refuse("observe");
  }

 private:
  static void refuse(const char* what) { emulator::fail(what, " is left to another kernel"); }
  Problem problem_;
};

std::unique_ptr<Kernel> emulated(const Problem& problem, unsigned seed, int blocks = 2) {
  return std::make_unique<cuda::WgmmaKernel<HopperLauncher>>(problem, HopperLauncher{seed}, blocks,
                                                             std::make_unique<Nobody>(problem));
}

constexpr Gaps aligned{8, 16, 8, 24};

/// Rows that no tile holds may hold anything.
void spoil(const Sheet& sheet, const std::vector<bool>& held) {
  const Rows& rows = sheet.rows();
  for (Index i = 0; i < rows.tokens; ++i)
    for (Index h = 0; h < rows.heads && !held[static_cast<std::size_t>(i)]; ++h)
      for (Index c = 0; c < rows.channels; ++c) set_number(rows, i, h, c, std::nan(""));
}

class WgmmaChannels : public testing::TestWithParam<std::pair<Index, Index>> {
 protected:
  template <class Expect>
  void in_every_layout(const Expect& expect) {
    const auto [channels, value_channels] = GetParam();
    unsigned seed = static_cast<unsigned>(channels);
    for (const Layout& layout : layouts()) {
      const DType type = ++seed % 4 < 2 ? DType::bf16 : DType::f16;
      const Inputs in(problem_of(channels, value_channels, type), layout.queries, layout.keys, seed, 1, aligned);
      spoil(in.q, touched(layout.tiles, layout.queries));
      spoil(in.dout, touched(layout.tiles, layout.queries));
      spoil(in.k, touched(layout.tiles, layout.keys, true));
      spoil(in.v, touched(layout.tiles, layout.keys, true));
      SCOPED_TRACE(sentence(layout.name, ", ", name_of(type), ", seed ", seed));
      const auto kernel = emulated(in.problem, seed);
      expect(*kernel, layout.tiles, in);
      if (HasFatalFailure()) return;
    }
  }
};

TEST_P(WgmmaChannels, ForwardAgreesWithTheReferenceInEveryLayout) { in_every_layout(expect_rounded_forward); }
TEST_P(WgmmaChannels, BackwardAgreesWithTheReferenceInEveryLayout) { in_every_layout(expect_rounded_backward); }

/// More than backward is written for.
class WgmmaManyChannels : public WgmmaChannels {};

TEST_P(WgmmaManyChannels, ForwardAgreesWithTheReferenceInEveryLayout) { in_every_layout(expect_rounded_forward); }

TEST(Wgmma, BackwardOfManyChannelsGoesToAnotherKernel) {
  const Inputs in(problem_of(64, 136, DType::bf16), 10, 10, 3, 1, aligned);
  const std::vector<Tile> tiles{tile({0, 10}, {0, 10})};
  const Truth truth(tiles, in);
  GradientSheets got(DType::f32, in, 0);
  EXPECT_THROW(emulated(in.problem, 1)
                   ->backward(tiles, {in.q, in.dout, rounded(truth.forward.lse), rounded(truth.delta)}, {in.k, in.v},
                              got.view()),
               emulator::Failure);
}

TEST(Wgmma, StateCarriesAcrossCallsInAnyOrder) {
  const Inputs in(problem_of(64, 64, DType::f16), 150, 500, 13, 1, aligned);
  const std::vector<Tile> all{tile({0, 150}, {0, 500}, {-far, 350})};
  const Truth truth(all, in);
  const auto kernel = emulated(in.problem, 5);
  ForwardResult carried{{DType::f32, 150, 3, 64, 5}, {DType::f32, 150, 3, 1}};
  for (const Range keys : {Range{290, 500}, Range{0, 70}, Range{70, 290}}) {
    const std::vector<Tile> part{tile({0, 150}, keys, {-far, 350 - keys.begin})};
    kernel->forward(part, in.q, {in.k, in.v}, carried.partial.view());
  }
  finish(carried.partial.view(), carried.lse);
  for (Index i = 0; i < 150; ++i)
    for (Index h = 0; h < 3; ++h) {
      EXPECT_NEAR(carried.lse.at(i, h), truth.forward.lse.at(i, h), 1e-5);
      for (Index c = 0; c < 64; ++c)
        EXPECT_NEAR(carried.partial.out.at(i, h, c), truth.forward.partial.out.at(i, h, c),
                    2 * unit(DType::f16) * largest(in.v));
    }
}

TEST(Wgmma, NothingDriftsWhileTheMaximumStays) {
  expect_no_drift([](const Problem& p) { return emulated(p, 3); });
}

TEST(Wgmma, GradientsOfAnySizeFitTheRangeOfF16) {
  expect_the_range_of_f16_to_suffice([](const Problem& p) { return emulated(p, 3); });
}

TEST(Wgmma, TheSameCallGivesTheSameBitsOnAnyNumberOfBlocks) {
  const Inputs in(problem_of(64, 64, DType::bf16), 300, 300, 17, 1, aligned);
  const std::vector<Tile> tiles{tile({0, 300}, {0, 300}, {-far, 0})};
  const Truth truth(tiles, in);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  const auto first = emulated(in.problem, 1, 1), second = emulated(in.problem, 2, 5);
  EXPECT_TRUE(forward_by(*first, tiles, in, in.v).partial.same_bits(forward_by(*second, tiles, in, in.v).partial));
  GradientSheets one(DType::f32, in, 0), other(DType::f32, in, 0);
  first->backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, one.view());
  second->backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, other.view());
  EXPECT_TRUE(one.dq.same_bits(other.dq) && one.dk.same_bits(other.dk) && one.dv.same_bits(other.dv));
}

TEST(Wgmma, RowsThatCopiesCannotReadGoToAnotherKernel) {
  const Inputs in(problem_of(64, 64, DType::bf16), 10, 10, 3);  // gaps of odd lengths
  const std::vector<Tile> tiles{tile({0, 10}, {0, 10})};
  EXPECT_THROW(forward_by(*emulated(in.problem, 1), tiles, in, in.v), emulator::Failure);
}

using Pair = std::pair<Index, Index>;
std::string pair_name(const testing::TestParamInfo<Pair>& pair) {
  return sentence("c", pair.param.first, "v", pair.param.second);
}
INSTANTIATE_TEST_SUITE_P(Cuda, WgmmaChannels,
                         testing::Values(Pair{64, 64}, Pair{40, 24}, Pair{128, 128}, Pair{72, 120}), pair_name);
INSTANTIATE_TEST_SUITE_P(Cuda, WgmmaManyChannels, testing::Values(Pair{256, 256}, Pair{136, 200}, Pair{64, 192}),
                         pair_name);

}  // namespace
}  // namespace annulus::test

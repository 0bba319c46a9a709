#include "annulus/kernel/cuda.hpp"
#include "gpu/gpu.hpp"
#include "gpu/visiting_kernel.hpp"
#include "kernel/cuda/rounded_agreement.hpp"

// The kernels for Hopper, judged on a GPU as in the emulator.

namespace annulus::test {
namespace {

class OnHopper : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    const CudaGpu gpu = cuda_gpus().front();
    if (gpu.major != 9 || gpu.minor != 0) GTEST_SKIP() << gpu.name << " is not of compute capability 9.0";
  }
  std::unique_ptr<Kernel> wgmma(const Problem& problem, int blocks = 0) {
    return std::make_unique<VisitingKernel>(make_cuda_wgmma_kernel(problem, *device, blocks), *device);
  }
  using Pairs = std::vector<std::pair<Index, Index>>;
  template <class Expect>
  void in_every_layout(const Pairs& pairs, const Expect& expect) {
    constexpr Gaps aligned{8, 16, 8, 24};
    unsigned seed = 1;
    for (const DType type : {DType::bf16, DType::f16})
      for (const auto& [channels, value_channels] : pairs)
        for (const Layout& layout : layouts())
          for (const int blocks : {0, 2}) {
            SCOPED_TRACE(sentence(layout.name, ", ", name_of(type), ", channels ", channels, " and ", value_channels,
                                  ", blocks ", blocks));
            const Inputs in(problem_of(channels, value_channels, type), layout.queries, layout.keys, ++seed, 1,
                            aligned);
            expect(*wgmma(in.problem, blocks), layout.tiles, in);
            if (HasFatalFailure()) return;
          }
  }
};

TEST_F(OnHopper, ForwardAgreesWithTheReferenceInEveryLayout) {
  in_every_layout({{64, 64}, {40, 24}, {128, 128}, {72, 120}, {256, 256}, {136, 200}}, expect_rounded_forward);
}
TEST_F(OnHopper, BackwardAgreesWithTheReferenceInEveryLayout) {
  in_every_layout({{64, 64}, {40, 24}, {128, 128}, {72, 120}, {192, 64}}, expect_rounded_backward);
}

TEST_F(OnHopper, NothingDriftsWhileTheMaximumStays) {
  expect_no_drift([this](const Problem& p) { return wgmma(p); });
}

TEST_F(OnHopper, GradientsOfAnySizeFitTheRangeOfF16) {
  expect_the_range_of_f16_to_suffice([this](const Problem& p) { return wgmma(p); });
}

}  // namespace
}  // namespace annulus::test

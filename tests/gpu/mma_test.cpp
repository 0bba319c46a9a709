#include "annulus/kernel/cuda.hpp"
#include "gpu/gpu.hpp"
#include "gpu/visiting_kernel.hpp"
#include "kernel/cuda/rounded_agreement.hpp"

// The tensor-core kernels of compute capability 8.0, judged on a GPU as in the emulator.

namespace annulus::test {
namespace {

class OnTensorCores : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    const CudaGpu gpu = cuda_gpus().front();
    if (gpu.major < 8) GTEST_SKIP() << gpu.name << " is older than compute capability 8.0";
  }
  std::unique_ptr<Kernel> mma(const Problem& problem) {
    return std::make_unique<VisitingKernel>(make_cuda_mma_kernel(problem, *device), *device);
  }
  template <class Expect>
  void in_every_layout(const Expect& expect) {
    unsigned seed = 1;
    for (const DType type : {DType::bf16, DType::f16})
      for (const auto& [channels, value_channels] : {std::pair<Index, Index>{64, 64},
                                                     {96, 96},
                                                     {20, 33},
                                                     {128, 64},
                                                     {128, 128},
                                                     {192, 192},
                                                     {256, 256},
                                                     {250, 130}})
        for (const Layout& layout : layouts()) {
          SCOPED_TRACE(sentence(layout.name, ", ", name_of(type), ", channels ", channels, " and ", value_channels));
          const Inputs in(problem_of(channels, value_channels, type), layout.queries, layout.keys, ++seed);
          expect(*mma(in.problem), layout.tiles, in);
          if (HasFatalFailure()) return;
        }
  }
};

TEST_F(OnTensorCores, ForwardAgreesWithTheReferenceInEveryLayout) { in_every_layout(expect_rounded_forward); }
TEST_F(OnTensorCores, BackwardAgreesWithTheReferenceInEveryLayout) { in_every_layout(expect_rounded_backward); }

TEST_F(OnTensorCores, NothingDriftsWhileTheMaximumStays) {
  expect_no_drift([this](const Problem& p) { return mma(p); });
}

TEST_F(OnTensorCores, GradientsOfAnySizeFitTheRangeOfF16) {
  expect_the_range_of_f16_to_suffice([this](const Problem& p) { return mma(p); });
}

TEST_F(OnTensorCores, TheSameCallGivesTheSameBits) {
  const Layout layout = layouts()[7];
  const Inputs in(problem_of(128, 128, DType::bf16), layout.queries, layout.keys, 3);
  const Truth truth(layout.tiles, in);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  const auto kernel = mma(in.problem);
  EXPECT_TRUE(forward_by(*kernel, layout.tiles, in, in.v)
                  .partial.same_bits(forward_by(*kernel, layout.tiles, in, in.v).partial));
  GradientSheets a(DType::f32, in, 0), b(DType::f32, in, 0);
  for (GradientSheets* g : {&a, &b})
    kernel->backward(layout.tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, g->view());
  EXPECT_TRUE(a.dq.same_bits(b.dq) && a.dk.same_bits(b.dk) && a.dv.same_bits(b.dv));
}

}  // namespace
}  // namespace annulus::test

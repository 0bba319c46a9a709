#include "annulus/kernel/cuda.hpp"

#include "gpu/gpu.hpp"
#include "gpu/visiting_kernel.hpp"
#include "kernel/agreement.hpp"

// GPU kernels against the naive float64 kernel, by the same comparisons as the CPU kernels.

namespace annulus::test {
namespace {

class GpuKernel : public OnGpu {
 protected:
  std::unique_ptr<Kernel> simt(const Problem& problem) {
    return std::make_unique<VisitingKernel>(make_cuda_simt_kernel(problem, *device), *device);
  }
};

TEST_F(GpuKernel, SimtAgreesWithTheReferenceInEveryLayout) {
  unsigned seed = 1;
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const auto& [channels, value_channels] :
         {std::pair<Index, Index>{1, 1}, {3, 70}, {64, 64}, {96, 33}, {128, 128}, {256, 192}})
      for (const Layout& layout : layouts()) {
        SCOPED_TRACE(sentence(layout.name, ", ", name_of(type), ", channels ", channels, " and ", value_channels));
        const Inputs in(problem_of(channels, value_channels, type), layout.queries, layout.keys, ++seed);
        const Truth truth(layout.tiles, in);
        const auto kernel = simt(in.problem);
        expect_forward(*kernel, layout.tiles, in, truth);
        expect_backward(*kernel, layout.tiles, in, truth);
        expect_observe(*kernel, layout.tiles, in, truth, seed % 2 == 0 ? 16 : 1);
        if (HasFatalFailure()) return;
      }
}

TEST_F(GpuKernel, SimtGivesTheSameBitsTwice) {
  const Layout layout = layouts()[7];
  const Inputs in(problem_of(64, 64, DType::bf16), layout.queries, layout.keys, 3);
  const Truth truth(layout.tiles, in);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  const auto kernel = simt(in.problem);
  ForwardResult a = forward_by(*kernel, layout.tiles, in, in.v), b = forward_by(*kernel, layout.tiles, in, in.v);
  EXPECT_TRUE(a.partial.same_bits(b.partial));
  GradientSheets c(DType::f32, in, 1), d(DType::f32, in, 1);
  for (GradientSheets* g : {&c, &d})
    kernel->backward(layout.tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, g->view());
  EXPECT_TRUE(c.dq.same_bits(d.dq) && c.dk.same_bits(d.dk) && c.dv.same_bits(d.dv));
  ObservationSheets e(DType::f32, in, 5, 7, 0), f(DType::f32, in, 5, 7, 0);
  for (ObservationSheets* o : {&e, &f}) kernel->observe(layout.tiles, in.q, in.k, lse, o->view());
  EXPECT_TRUE(e.same_bits(f));
}

TEST_F(GpuKernel, FinishResetAndRowDotDoAsTheCpu) {
  const Inputs in(problem_of(8, 24, DType::f16), 500, 40, 5);
  const std::vector<Tile> tiles{tile({10, 500}, {0, 40}, {-far, 460})};  // the first rows see nothing
  const auto kernel = simt(in.problem);
  ForwardResult a = forward_by(*kernel, tiles, in, in.v), b = a;
  kernel->finish(a.partial.view(), a.lse);
  finish(b.partial.view(), b.lse);
  Sheet delta(DType::f32, 500, 3, 1), exact = delta;
  kernel->row_dot(in.dout, a.partial.out, delta);
  row_dot(in.dout, a.partial.out, exact);
  for (Index i = 0; i < 500; ++i)
    for (Index h = 0; h < 3; ++h) {
      if (i < 10) {
        EXPECT_EQ(a.lse.at(i, h), minus_infinity);
      } else {
        EXPECT_NEAR(a.lse.at(i, h), b.lse.at(i, h), 1e-6 * (1 + std::abs(b.lse.at(i, h))));
      }
      EXPECT_NEAR(delta.at(i, h), exact.at(i, h), 1e-6 * (1 + std::abs(exact.at(i, h))));
      for (Index c = 0; c < 24; ++c)
        ASSERT_NEAR(a.partial.out.at(i, h, c), b.partial.out.at(i, h, c),
                    1e-6 * (1 + std::abs(b.partial.out.at(i, h, c))));
    }
  kernel->reset(a.partial.view());
  EXPECT_EQ(a.partial.top.at(499, 2), minus_infinity);
  EXPECT_EQ(a.partial.sum.at(499, 2), 0);
  EXPECT_EQ(a.partial.out.at(499, 2, 23), 0);
}

}  // namespace
}  // namespace annulus::test

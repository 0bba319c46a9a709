#include "annulus/kernel/cuda.hpp"
#include "annulus/transport/staged.hpp"
#include "gpu/gpu.hpp"
#include "support/engine_errors.hpp"

// The engine on one GPU that several ranks share, each with a stream of its own, with messages through host memory.

namespace annulus::test {
namespace {

Errors run_on_gpu(const Dense& dense, const Schedule& job,
                  std::unique_ptr<Kernel> (*make)(const Problem&, Device&) = make_cuda_simt_kernel) {
  Errors worst;
  std::mutex lock;
  on_ranks(job.grid.ranks(), [&](Transport& transport) {
    const auto device = make_cuda_device(0), staging = make_pinned_memory();
    const auto staged = make_staged_transport(transport, *device, *staging);
    const MakeKernel kernel = [&](const Problem& p) { return make(p, *device); };
    const Errors mine = engine_errors(dense, job, kernel, *staged, *device);
    const std::lock_guard guard(lock);
    worst.include(mine);
  });
  return worst;
}

class GpuEngine : public OnGpu {};

TEST_F(GpuEngine, IsExactInFloat64ForEveryStrategyPartitionAndMask) {
  const AttentionShape shape{6, 3, 5, 4, DType::f64, 0.4};
  for (const char* terms :
       {"causal", "full", "causal+window:5,0+sink:2", "causal+documents", "window:2,2+global:0,9"}) {
    const Mask mask = Mask::parse(terms, {37, 37, {0, 7, 7, 18, 37}});
    const Dense dense = make_dense(shape, mask, 5);
    for (const Grid& grid :
         {Grid{1, 1, 1}, Grid{1, 2, 1}, Grid{2, 1, 1}, Grid{1, 4, 1}, Grid{2, 2, 1}, Grid{1, 2, 2},
          Grid{1, 4, 1, Travel::gather}, Grid{1, 4, 1, Travel::queries}, Grid{1, 4, 1, Travel::tree}})
      for (const char* partition : {"contiguous", "zigzag", "striped", "balanced"}) {
        SCOPED_TRACE(mask.name() + " " + to_text(grid) + " " + partition);
        ASSERT_LE(run_on_gpu(dense, make_schedule(grid, partition, mask)).worst(), 1e-12);
      }
  }
}

TEST_F(GpuEngine, KeepsTheBoundsOfTheCpuKernels) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    const Mask mask = Mask::parse("causal+window:90,0+sink:3", {233, 233});
    const Dense dense = make_dense({4, 2, 24, 20, type, 0.2}, mask, 6);
    for (const Grid& grid : {Grid{1, 1, 1}, Grid{2, 1, 1}, Grid{1, 4, 1}}) {
      const Errors errors = run_on_gpu(dense, make_schedule(grid, "zigzag", mask));
      EXPECT_LE(errors.forward(), 1e-6) << name_of(type) << " " << to_text(grid);
      EXPECT_LE(errors.gradients(), 5e-6) << name_of(type) << " " << to_text(grid);
      EXPECT_LE(errors.statistics(), 5e-6) << name_of(type) << " " << to_text(grid);
    }
  }
}

// Tensor cores in the engine: P and dS rounded to 16 bits, and nothing between hops.
void expect_rounded_engine(std::unique_ptr<Kernel> (*make)(const Problem&, Device&)) {
  const Mask mask = Mask::parse("causal+window:90,0+sink:3", {233, 233});
  const Dense dense = make_dense({4, 2, 64, 64, DType::bf16, 0.125}, mask, 6);
  for (const Grid& grid : {Grid{1, 1, 1}, Grid{2, 1, 1}, Grid{1, 4, 1}, Grid{1, 4, 1, Travel::gather}}) {
    const Errors errors = run_on_gpu(dense, make_schedule(grid, "zigzag", mask), make);
    EXPECT_LE(errors.out, 0x1p-7) << to_text(grid);
    EXPECT_LE(errors.lse, 1e-6) << to_text(grid);
    EXPECT_LE(errors.gradients(), 0x1p-7) << to_text(grid);
  }
}

TEST_F(GpuEngine, TensorCoresKeepTheirBoundsOnAnyNumberOfRanks) {
  if (cuda_gpus().front().major < 8) GTEST_SKIP() << device->name() << " is older than compute capability 8.0";
  expect_rounded_engine(make_cuda_mma_kernel);
}

TEST_F(GpuEngine, HoppersTensorCoresKeepTheirBoundsOnAnyNumberOfRanks) {
  const CudaGpu gpu = cuda_gpus().front();
  if (gpu.major != 9 || gpu.minor != 0) GTEST_SKIP() << gpu.name << " is not of compute capability 9.0";
  expect_rounded_engine([](const Problem& p, Device& d) { return make_cuda_wgmma_kernel(p, d); });
}

}  // namespace
}  // namespace annulus::test

#include <gtest/gtest.h>

#include "annulus/transport/staged.hpp"
#include "kernel/cuda/emulated.hpp"
#include "kernel/cuda/simt_kernel.hpp"
#include "support/engine_errors.hpp"
#include "support/guarded_device.hpp"
#include "support/sanitized.hpp"

// All of a GPU job but the GPU: the engine, memory that only the device may touch, messages staged through host memory,
// and the source of the GPU kernels.

namespace annulus::test {
namespace {

TEST(EmulatedGpu, TheEngineIsExactInFloat64) {
  const AttentionShape shape{4, 2, 5, 4, DType::f64, 0.4};
  for (const char* terms : {"causal+window:5,0+sink:2", "documents"}) {
    const Mask mask = Mask::parse(terms, {29, 29, {0, 7, 7, 18, 29}});
    const Dense dense = make_dense(shape, mask, 5);
    for (const Grid& grid : {Grid{1, 1, 1}, Grid{1, 3, 1}, Grid{2, 1, 1}, Grid{2, 2, 1}}) {
      if (sanitized && grid.ranks() > 2) continue;
      Errors worst;
      std::mutex lock;
      const Schedule job = make_schedule(grid, "zigzag", mask);
      on_ranks(grid.ranks(), [&](Transport& transport) {
        GuardedDevice device;
        CpuDevice host;
        const auto staged = make_staged_transport(transport, device, host);
        const MakeKernel emulated = [&](const Problem& p) {
          return std::make_unique<GuardedKernel>(
              std::make_unique<cuda::SimtKernel<EmulatedLauncher>>(p, EmulatedLauncher{}), device);
        };
        const Errors mine = engine_errors(dense, job, emulated, *staged, device);
        const std::lock_guard guard(lock);
        worst.include(mine);
      });
      EXPECT_LE(worst.worst(), 1e-12) << mask.name() << " " << to_text(grid);
    }
  }
}

}  // namespace
}  // namespace annulus::test

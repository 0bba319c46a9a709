#include <gtest/gtest.h>

#include "annulus/transport/staged.hpp"
#include "support/engine_errors.hpp"
#include "support/guarded_device.hpp"

namespace annulus {
namespace {

// The engine on a device whose memory it cannot look into, with messages through host memory: what a GPU asks of it.
Errors run_guarded(const Dense& dense, const Schedule& job, const MakeKernel& make) {
  Errors worst;
  std::mutex lock;
  on_ranks(job.grid.ranks(), [&](Transport& transport) {
    GuardedDevice device;
    CpuDevice host;
    const auto staged = make_staged_transport(transport, device, host);
    const MakeKernel guarded = [&](const Problem& p) { return std::make_unique<GuardedKernel>(make(p), device); };
    const Errors mine = engine_errors(dense, job, guarded, *staged, device);
    const std::lock_guard guard(lock);
    worst.include(mine);
  });
  return worst;
}

TEST(EngineOnADevice, NeverLooksIntoItsMemoryAndIsExactInFloat64) {
  const AttentionShape shape{6, 3, 5, 4, DType::f64, 0.4};
  for (const char* terms : {"causal", "causal+window:5,0+sink:2", "causal+documents"}) {
    const Mask mask = Mask::parse(terms, {37, 37, {0, 7, 7, 18, 37}});
    const Dense dense = make_dense(shape, mask, 5);
    for (const Grid& grid :
         {Grid{1, 1, 1}, Grid{1, 3, 1}, Grid{2, 1, 1}, Grid{2, 2, 1}, Grid{1, 2, 2}, Grid{4, 1, 1},
          Grid{1, 2, 2, Travel::gather}, Grid{2, 2, 1, Travel::queries}, Grid{1, 3, 1, Travel::tree}})
      for (const char* partition : {"contiguous", "zigzag", "striped"}) {
        SCOPED_TRACE(sentence(mask.name(), " ", strategy_of(grid), " ", to_text(grid), " ", partition));
        ASSERT_LE(run_guarded(dense, make_schedule(grid, partition, mask), reference64).worst(), 1e-13);
      }
  }
}

TEST(EngineOnADevice, WorksWithFewTokensAndManyRanks) {
  for (const Index n : {0, 1, 3}) {
    const Mask mask = Mask::parse("causal", {n, n});
    const Dense dense = make_dense({3, 1, 3, 2, DType::f64, 0.7}, mask, 3);
    for (const Grid& grid :
         {Grid{1, 4, 1}, Grid{4, 1, 1}, Grid{2, 2, 1}, Grid{1, 4, 1, Travel::queries}, Grid{1, 4, 1, Travel::tree}})
      ASSERT_LE(run_guarded(dense, make_schedule(grid, "zigzag", mask), reference64).worst(), 1e-13);
  }
}

// A device works later than it is told: what is reported has been waited for, but for the last portion.
TEST(EngineOnADevice, ReportsProgressThatItKeptPaceWith) {
  const AttentionShape shape{2, 1, 3, 4, DType::f64, 0.4};
  const Mask mask = Mask::parse("full", {800, 50});
  const Schedule job = make_schedule({1, 1, 1}, "contiguous", mask);
  on_ranks(1, [&](Transport& transport) {
    CpuDevice cpu;
    GuardedDevice device;
    GuardedKernel kernel(reference64(problem_of(shape, job.grid, job.lane_of(0), mask.query_shift())), device);
    Timeline timeline;
    Index reports = 0, done = 0;
    const auto progress = [&](Index triples) {
      ++reports, done += triples;
      EXPECT_EQ(device.paces, reports);
    };
    HostAttention attention(job, shape, {device, kernel, transport, timeline, 1e4, progress});
    const Array q = Array::zeros(cpu, DType::f64, 800, 2, 3), k = Array::zeros(cpu, DType::f64, 50, 1, 3),
                v = Array::zeros(cpu, DType::f64, 50, 1, 4), out(cpu, DType::f64, 800, 2, 4),
                lse(cpu, DType::f64, 800, 2, 1);
    attention.forward(q, {k, v}, out, lse);
    EXPECT_GT(reports, 2);
    EXPECT_EQ(done, 800 * 50 * 2);
  });
}

TEST(EngineOnADeviceDeathTest, AGuardedDeviceCatchesWhoLooks) {  // the guard itself must be able to fail
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        GuardedDevice device;
        const Array array = Array::zeros(device, DType::f32, 1, 1, 1);
        clear(array);
      },
      "");
}

}  // namespace
}  // namespace annulus

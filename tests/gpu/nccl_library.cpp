#include <gtest/gtest.h>

#include "annulus/transport/in_process.hpp"
#include "annulus/transport/nccl.hpp"

namespace annulus {
namespace {

// What needs no GPU: the library is found with all its functions, or the reason is said.
TEST(NcclLibrary, IsLoadedOrTheReasonIsSaid) {
  if (!nccl_refusal().empty()) GTEST_SKIP() << nccl_refusal();
  EXPECT_TRUE(nccl_version().starts_with("2.")) << nccl_version();
  EXPECT_NE(nccl_memory().allocate, nullptr);
}

TEST(NcclLibrary, MovesNothingForAnotherDeviceThanAGpu) {
  Fabric fabric(1);
  const auto alone = fabric.transport(0);
  CpuDevice cpu;
  EXPECT_THROW(make_nccl_transport(*alone, cpu), Error);
}

}  // namespace
}  // namespace annulus

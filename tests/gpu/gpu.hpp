#pragma once
#include <gtest/gtest.h>

#include "annulus/memory/cuda.hpp"

namespace annulus::test {

/// A test that needs a GPU: skipped with the reason where there is none.
class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = cuda_refusal();
    if (!reason.empty()) GTEST_SKIP() << reason;
    device = make_cuda_device(0);
  }
  std::unique_ptr<Device> device;
};

}  // namespace annulus::test

#include "annulus/transport/staged.hpp"

#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "support/ranks.hpp"
#include "transport/contract.hpp"

namespace annulus {
namespace {

TEST(Staged, KeepsTheContractOfTransports) {  // of the CPU's memory, so that the contract can look at its messages
  for (int ranks : {1, 2, 3, 5})
    on_ranks(ranks, [](Transport& inner) {
      CpuDevice device, staging;
      contract::everything(*make_staged_transport(inner, device, staging));
    });
}

// Like a GPU: what it is told to do is done at finish() and no sooner.
class LateDevice final : public Device {
 public:
  Place place() const override { return Place::cuda; }
  std::string name() const override { return "late"; }
  std::byte* allocate(Index bytes) override { return cpu_.allocate(bytes); }
  void release(std::byte* memory, Index bytes) noexcept override { cpu_.release(memory, bytes); }
  void zero(std::byte* memory, Index bytes) override { cpu_.zero(memory, bytes); }
  void copy(std::byte* to, const std::byte* from, Index bytes) override { cpu_.copy(to, from, bytes); }
  void later(std::function<void()> work) { work_.push_back(std::move(work)); }
  void finish() override {
    for (const auto& work : std::exchange(work_, {})) work();
  }

 private:
  CpuDevice cpu_;
  std::vector<std::function<void()>> work_;
};

TEST(Direct, KeepsTheContractOfTransports) {
  for (int ranks : {1, 2, 3, 5})
    on_ranks(ranks, [](Transport& inner) {
      LateDevice device;
      contract::everything(*make_direct_transport(inner, device));
    });
}

TEST(Direct, SendsWhatTheDeviceWasAskedToCompute) {
  on_ranks(2, [](Transport& inner) {
    LateDevice device;
    const auto direct = make_direct_transport(inner, device);
    std::array<std::byte, 4> mine{}, theirs{};
    device.later([&] { mine.fill(std::byte{7}); });
    const Send send{1 - inner.rank(), mine};
    const Recv recv{1 - inner.rank(), theirs};
    direct->start({&send, 1}, {&recv, 1}).wait();
    EXPECT_EQ(theirs[3], std::byte{7});
  });
}

TEST(Staged, BatchesOfTheInnerTransportMayLieBetweenItsOwn) {
  on_ranks(3, [](Transport& inner) {
    CpuDevice device, staging;
    const auto staged = make_staged_transport(inner, device, staging);
    for (int round = 0; round < 4; ++round) {
      contract::polling_is_enough(*staged);
      contract::polling_is_enough(inner);
    }
  });
}

}  // namespace
}  // namespace annulus

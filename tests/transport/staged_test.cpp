#include "annulus/transport/staged.hpp"

#include <gtest/gtest.h>

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

#include "annulus/transport/in_process.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>

#include "support/ranks.hpp"
#include "transport/contract.hpp"
#include "transport/loans.hpp"

namespace annulus {
namespace {

TEST(InProcess, KeepsTheContractOfTransports) {
  for (int ranks : {1, 2, 3, 5, 8}) on_ranks(ranks, contract::everything);
}

TEST(InProcess, LendsMemoryInPlace) {
  for (int ranks : {1, 2, 3, 5, 8}) on_ranks(ranks, loans::everything);
  on_ranks(4, loans::everything, 20, {0.003, 0, 3});
}

TEST(InProcess, WhatAFailedRankHasLentCanBeReadUntilAllHaveEnded) {
  std::atomic<bool> failed = false;
  const auto body = [&](Transport& t) {
    CpuDevice cpu;
    const Array own(*t.shared(), DType::f64, loans::tokens, 1, 1), buffer(cpu, DType::f64, loans::tokens, 1, 1);
    loans::write(own, t.rank(), 0);
    t.shared()->lend();
    const std::byte* seen = buffer.rows().data;
    const Send send{1 - t.rank(), own.rows().span(0, loans::tokens), true};
    const Recv recv{1 - t.rank(), buffer.rows().span(0, loans::tokens), &seen};
    t.start({&send, 1}, {&recv, 1}).wait();
    if (t.rank() == 0) throw Error(Failure::runtime, "rank 0 gives up");
    while (!failed) std::this_thread::yield();
    EXPECT_TRUE(loans::says(seen, 0, 0));  // rank 0 has left its function, and with it all its arrays
  };
  EXPECT_THROW(on_ranks(2,
                        [&](Transport& t) {
                          try {
                            body(t);
                          } catch (const Error&) {
                            failed = true;
                            throw;
                          }
                        }),
               Error);
}

TEST(InProcess, KeepsTheContractUnderDelaysAndReordering) {
  for (std::uint64_t seed = 1; seed < 5; ++seed) on_ranks(4, contract::everything, 20, {0.003, 0, seed});
}

TEST(InProcess, ALostMessageIsAnErrorAfterTheDeadlineAndNamesTheBatch) {
  try {
    on_ranks(3, contract::everything, 0.2, {0, 0.2, 7});
    FAIL() << "messages were lost and nobody noticed";
  } catch (const Error& e) {
    EXPECT_EQ(e.failure(), Failure::communication);
    EXPECT_NE(std::string(e.what()).find("in batch"), std::string::npos) << e.what();
  }
}

// Who waits elsewhere asks a batch of nothing whether all are well.
TEST(InProcess, ABatchWithoutMessagesTellsOfAFailure) {
  Fabric fabric(2, 20);
  const auto a = fabric.transport(0), b = fabric.transport(1);
  Pending nothing = a->start({}, {});
  EXPECT_TRUE(nothing.poll());
  b->fail(Error(Failure::file, "rank 1 cannot read"));
  EXPECT_THROW(nothing.poll(), Error);
}

TEST(InProcess, AFailingRankReleasesTheOthersAtOnce) {
  const auto begins = std::chrono::steady_clock::now();
  try {
    on_ranks(
        4,
        [](Transport& t) {
          if (t.rank() == 2) throw Error(Failure::file, "rank 2 cannot read");
          barrier(t);
        },
        60);
    FAIL() << "nobody heard";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rank 2 cannot read");
    EXPECT_EQ(e.failure(), Failure::file);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begins, std::chrono::seconds(10));
}

// With many ranks whoever waits would else be woken for every message of all others.
TEST(InProcess, ARankIsNotWokenForTheMessagesOfOthers) {
  constexpr int rounds = 2000;
  on_ranks(3, [&](Transport& t) {
    std::byte mine{1}, theirs{0};
    const auto exchange = [&](Rank peer, bool sends, bool receives) {
      const Send send{peer, {&mine, 1}};
      const Recv recv{peer, {&theirs, 1}};
      t.start({&send, sends ? 1U : 0U}, {&recv, receives ? 1U : 0U}).wait();
    };
    const auto sleeps = [] {
      rusage used{};
      getrusage(RUSAGE_THREAD, &used);
      return used.ru_nvcsw;
    };
    if (t.rank() > 0)
      for (int i = 0; i < rounds; ++i) exchange(3 - t.rank(), true, true);
    if (t.rank() == 0)
      for (int i = 0; i < rounds; ++i) t.start({}, {}).wait();
    const auto before = sleeps();
    if (t.rank() == 0) exchange(1, false, true);
    if (t.rank() == 1) exchange(0, true, false);
    if (t.rank() == 0) {
      EXPECT_LT(sleeps() - before, 100);
    }
  });
}

TEST(InProcess, ThereIsNoTransportForARankBeyondTheFabric) {
  Fabric fabric(2);
  EXPECT_THROW(fabric.transport(-1), Error);
  EXPECT_THROW(fabric.transport(2), Error);
}

TEST(InProcess, LengthsThatDisagreeAreAnErrorOnBothSides) {
  try {
    on_ranks(2, [](Transport& t) {
      std::vector<std::byte> bytes(t.rank() == 0 ? 3 : 4);
      const Send send{1 - t.rank(), bytes};
      std::vector<std::byte> in(3);
      const Recv recv{1 - t.rank(), in};
      t.start({&send, 1}, {&recv, 1}).wait();
    });
    FAIL() << "nobody noticed";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("has 4 bytes where 3 are expected"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace annulus

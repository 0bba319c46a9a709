#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "annulus/engine/attention.hpp"
#include "annulus/transport/mpi.hpp"
#include "mpi/session.hpp"
#include "support/engine_errors.hpp"
#include "transport/contract.hpp"
#include "transport/loans.hpp"

namespace annulus {
namespace {

TEST(Mpi, KeepsTheContractOfTransports) { contract::everything(*mpi_test_transport); }
TEST(Mpi, LendsMemoryInPlaceWhereItIsShared) { loans::everything(*mpi_test_transport); }

// What the engine does between two looks at a batch may take long; the messages must not wait for it.
TEST(Mpi, MessagesBetweenNodesArriveWhileNobodyLooks) {
  Transport& transport = *mpi_test_transport;
  if (transport.ranks() == 1 || transport.name() == "shared") GTEST_SKIP() << "there are no messages between nodes";
  if (MpiSession::knows_cuda()) GTEST_SKIP() << "MPI may use a GPU, which belongs to one thread";
  constexpr std::size_t bytes = 1 << 20;  // longer than what MPI sends unasked
  const std::vector<std::byte> leaving(bytes, std::byte{7});
  std::vector<std::byte> arriving(bytes, std::byte{0});
  const Rank right = (transport.rank() + 1) % transport.ranks(),
             left = (transport.rank() + transport.ranks() - 1) % transport.ranks();
  const Send send{right, leaving};
  const Recv recv{left, arriving};
  Pending pending = transport.start({&send, 1}, {&recv, 1});
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);  // it takes a millisecond or some
  const auto there = [&] { return std::atomic_ref(arriving.back()).load() == std::byte{7}; };
  while (!there() && std::chrono::steady_clock::now() < patience)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(there()) << "nothing arrived before somebody polled";
  pending.wait();
  EXPECT_EQ(arriving, leaving);
}

TEST(Mpi, PiecesOfNoLengthOrMoreThanMpiCountsAreRefused) {
  for (const Index bytes : {Index{-1}, Index{0}, Index{4095}, Index{1} << 31}) {
    const MpiOptions options{.most_bytes_per_message = bytes};
    EXPECT_THROW(make_mpi_transport(*mpi_test_session, options), Error);
    EXPECT_THROW(make_shared_transport(*mpi_test_session, options), Error);
  }
}

// The same engine, plans and oracle as on threads; every grid that fits the number of ranks.
TEST(Mpi, EveryStrategyPartitionAndMaskIsExactInFloat64) {
  const int ranks = mpi_test_transport->ranks();
  const AttentionShape shape{6, 3, 5, 4, DType::f64, 0.4};
  for (const char* terms :
       {"full", "causal", "causal+window:5,0+sink:2", "causal+documents", "window:2,2+global:0,9"}) {
    const Mask mask = Mask::parse(terms, {37, 37, {0, 7, 7, 18, 37}});
    const Dense dense = make_dense(shape, mask, 5);
    for (int heads = 1; heads <= ranks; ++heads)
      for (int inner = 1; heads * inner <= ranks; ++inner) {
        Grid grid{heads, inner, ranks / heads / inner};
        if (grid.ranks() != ranks) continue;
        for (const Travel travel : {Travel::keys, Travel::gather, Travel::queries, Travel::tree})
          for (const char* partition : {"contiguous", "zigzag", "striped", "balanced"}) {
            grid.travel = travel;
            SCOPED_TRACE(sentence(mask.name(), " ", strategy_of(grid), " ", to_text(grid), " ", partition));
            const Errors errors =
                engine_errors(dense, make_schedule(grid, partition, mask), reference64, *mpi_test_transport);
            EXPECT_LE(errors.worst(), 1e-13);
          }
      }
  }
}

}  // namespace
}  // namespace annulus

#include <gtest/gtest.h>

#include <random>

#include "annulus/base/error.hpp"
#include "annulus/plan/cost.hpp"

// What crosses the wire, against counting by hand and against closed forms.

namespace annulus {
namespace {

constexpr Index row = 2 * (3 + 5) * 4;  // of K and V: heads x channels x bytes
const Prices prices{4, 2, 3, 5, 4};

Index bytes(const Grid& grid, const char* partition, const Mask& mask) {
  return estimate(make_schedule(grid, partition, mask), prices).total_bytes;
}

// Keys that somebody on a seat sees and that another seat owns, counted pair by pair.
Index rows_seen_elsewhere(const Schedule& job, bool turned) {
  const Partition &stay = turned ? job.planner.keys() : job.planner.queries(),
                  &travel = turned ? job.planner.queries() : job.planner.keys();
  Index total = 0;
  for (Rank seat = 0; seat < stay.ranks(); ++seat)
    for (Rank owner = 0; owner < travel.ranks(); ++owner)
      for (Index r = 0; seat != owner && r < travel.rows(owner); ++r) {
        const Index there = travel.position(owner, r);
        bool seen = false;
        for (Index i = 0; i < stay.rows(seat) && !seen; ++i) {
          const Index here = stay.position(seat, i);
          seen = turned ? job.mask.visible(there, here) : job.mask.visible(here, there);
        }
        total += seen ? 1 : 0;
      }
  return total;
}

TEST(Bytes, OnTheWireAreExactlyTheRowsThatSomebodySees) {
  for (const char* terms : {"full", "causal", "window:3,2", "causal+window:5,0+sink:2", "causal+documents", "documents",
                            "causal+prefix:7", "window:2,2+global:0,9"})
    for (const char* partition : {"contiguous", "zigzag", "striped", "balanced"})
      for (const Grid& grid : {Grid{1, 4, 1}, Grid{1, 3, 2}, Grid{1, 3, 2, Travel::gather}, Grid{1, 5, 1, Travel::queries}}) {
        const Mask mask = Mask::parse(terms, {37, 37, {0, 7, 7, 18, 37}});
        const Schedule job = make_schedule(grid, partition, mask);
        const bool turned = queries_travel(grid.travel);
        const Index each = turned ? 4 * (3 + 5 + 2) * 4 : row;  // a query, and its partial result on the way home
        EXPECT_EQ(estimate(job, prices).total_bytes, rows_seen_elsewhere(job, turned) * each)
            << terms << " " << partition << " " << strategy_of(grid) << " " << to_text(grid);
      }
}

TEST(Bytes, OfFullCausalAndWindowAreTheirClosedForms) {
  constexpr Index n = 1 << 20, ranks = 16, shard = n / ranks;
  const auto of = [&](const char* terms, const char* partition) {
    return bytes({1, ranks, 1}, partition, Mask::parse(terms, {n, n}));
  };
  EXPECT_EQ(of("full", "contiguous"), n * (ranks - 1) * row);
  EXPECT_EQ(of("full", "zigzag"), n * (ranks - 1) * row);
  EXPECT_EQ(of("causal", "contiguous"), n * (ranks - 1) / 2 * row);  // to later ranks only
  EXPECT_EQ(of("causal", "zigzag"), n * (ranks - 1) * 3 / 4 * row);  // to earlier ranks whole, to later ones half
  Index window = 0;
  for (Index r = 0; r < ranks; ++r) window += std::min<Index>(100000, r * shard);
  EXPECT_EQ(of("window:100000,0", "contiguous"), window * row);
}

TEST(Bytes, PackedDocumentsMoveAFourthOfAPlainRingAtMost) {
  constexpr Index n = 1 << 16;
  for (const int ranks : {8, 16, 64}) {
    std::vector<Index> offsets{0, n / 4, n / 2, 3 * n / 4, n};
    const Mask even = Mask::parse("documents", {n, n, offsets});
    const Schedule job = make_schedule({1, ranks, 1}, "contiguous", even);
    const Estimate e = estimate(job, prices);
    EXPECT_EQ(e.total_bytes, n * (ranks / 4 - 1) * row);  // each shard to the others of its document
    EXPECT_EQ(e.whole_bytes, n * (ranks - 1) * row);
    EXPECT_GE(e.whole_bytes, 4 * e.total_bytes);
    std::mt19937 random(5);
    for (int trial = 0; trial < 20; ++trial) {  // and of any lengths, a fourth on average
      for (std::size_t d = 1; d < 4; ++d) offsets[d] = static_cast<Index>(random() % n);
      std::ranges::sort(offsets);
      const Mask mask = Mask::parse("causal+documents", {n, n, offsets});
      Index rows = 0;  // of a document, each rank receives what earlier ranks have of it
      const Index shard = n / ranks;
      for (std::size_t d = 1; d < offsets.size(); ++d)
        for (Index r = offsets[d - 1] / shard + 1; r * shard < offsets[d]; ++r) rows += r * shard - offsets[d - 1];
      EXPECT_EQ(bytes({1, ranks, 1}, "contiguous", mask), rows * row) << ranks << " ranks, trial " << trial;
    }
  }
}

TEST(Bytes, OfATreesGradientsIncludeTheirExchangeOfHeads) {
  Prices both = prices;
  both.backward = true;
  both.ranks_per_node = 3;
  const Mask mask = Mask::parse("full", {36, 36});
  const Estimate tree = estimate(make_schedule({2, 3, 1, Travel::tree}, "contiguous", mask), both),
                 ring = estimate(make_schedule({2, 3, 1}, "contiguous", mask), both);
  EXPECT_EQ(tree.exchange_bytes, ring.exchange_bytes);
  EXPECT_EQ(tree.exchange_total, ring.exchange_total);
  EXPECT_EQ(tree.exchange_node_bytes, ring.exchange_node_bytes);
}

// One head of 20 channels in f32 on four ranks of 128 tokens each: the last of them has the head.
TEST(Bytes, OfHeadsThatDoNotDivideAreThoseOfTheRanksThatHaveThem) {
  const Prices one{1, 1, 20, 20, 4};
  const Estimate e = estimate(make_schedule({4, 1, 1}, "contiguous", Mask::parse("causal", {512, 512})), one);
  EXPECT_EQ(e.exchange_bytes, 3 * 128 * 3 * 20 * 4);                         // q, k and v of the three others
  EXPECT_EQ(e.exchange_total, e.exchange_bytes + 3 * 128 * (20 * 4 + 4));  // and out and lse back to them
  EXPECT_EQ(e.total_bytes, 0);
  // three heads on two lanes: one of them moves twice as much as the other
  const Prices three{3, 3, 2, 2, 4};
  EXPECT_EQ(estimate(make_schedule({2, 2, 1}, "contiguous", Mask::parse("full", {64, 64})), three).total_bytes,
            64 * 3 * (2 + 2) * 4);
}

// Gathered blocks go to later ranks, and their gradients home to earlier ones.
TEST(Bytes, IntoTheBusiestRankAreThoseOfOneRank) {
  const Mask mask = Mask::parse("causal", {40, 40});
  const Estimate e = estimate(make_schedule({1, 4, 1, Travel::gather}, "contiguous", mask), {1, 1, 3, 5, 4, true});
  constexpr Index block = 10 * (3 + 5) * 4;
  EXPECT_EQ(e.block_bytes_received, 2 * 3 * block);  // the last rank: three blocks in each pass, and no gradient
  EXPECT_EQ(e.total_bytes, 3 * (3 + 2 + 1) * block);
}

TEST(Bytes, OfWholeBlocksOfABillionTokensAreAPositiveNumber) {
  Prices wide{64, 64, 128, 128, 4, true};
  const Mask mask = Mask::parse("window:65535,0", {1'000'000'000, 1'000'000'000});
  const Estimate e = estimate(make_schedule({1, 4096, 1}, "contiguous", mask), wide);
  EXPECT_NEAR(e.whole_bytes, 1e9 * 4095 * 64 * 256 * 12, 1e10);
}

TEST(Bytes, InnerRingsInsideNodesSpareTheLinksBetweenThem) {
  const Mask mask = Mask::parse("full", {4096, 4096});
  Prices p = prices;
  p.ranks_per_node = 4;
  const auto between = [&](const Grid& grid) { return estimate(make_schedule(grid, "contiguous", mask), p).node_bytes; };
  // ring: one link of four crosses, in every step; double ring: all blocks cross when the inner ring is done, and not again
  EXPECT_EQ(between({1, 16, 1}), 15 * 4 * 256 * row);
  EXPECT_EQ(between({1, 4, 4}), 3 * 16 * 256 * row);
  EXPECT_EQ(between({4, 4, 1}), 3 * 4 * 1024 * 4 * (row / 2));  // heads inside the node; a K/V head goes to two lanes
}

}  // namespace
}  // namespace annulus

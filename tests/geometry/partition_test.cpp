#include "annulus/geometry/partition.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

constexpr const char* names[]{"contiguous", "zigzag", "striped", "balanced"};

void expect_exactly_once(const Partition& partition, Index tokens) {
  std::vector<int> owners(static_cast<std::size_t>(tokens));
  Index rows = 0, largest = 0;
  for (Rank r = 0; r < partition.ranks(); ++r) {
    Index row = 0;
    for (const annulus::Run& run : partition.runs(r)) {
      ASSERT_GT(run.count, 0) << "a run without tokens";
      for (Index i = 0; i < run.count; ++i, ++row) {
        ASSERT_TRUE((Range{0, tokens}.contains(run.at(i)))) << run.at(i);
        ++owners[static_cast<std::size_t>(run.at(i))];
        ASSERT_EQ(partition.position(r, row), run.at(i)) << "rows are numbered run after run";
      }
    }
    ASSERT_EQ(partition.rows(r), row);
    rows += row;
    largest = std::max(largest, row);
    ASSERT_THROW(partition.position(r, row), Error);
    ASSERT_THROW(partition.position(r, -1), Error);
  }
  ASSERT_EQ(rows, tokens);
  ASSERT_EQ(partition.largest(), largest);
  ASSERT_EQ(partition.tokens(), tokens);
  for (Index t = 0; t < tokens; ++t) ASSERT_EQ(owners[static_cast<std::size_t>(t)], 1) << "token " << t;
}

TEST(Partition, RunsTileTheTokensExactlyOnceForAnyLengthAndAnyRanks) {
  for (const Index n : {0, 1, 2, 3, 5, 8, 13, 31, 64, 97})  // none, one, fewer than ranks, nothing that divides
    for (int ranks = 1; ranks <= 17; ++ranks)
      for (const char* name : names) {
        SCOPED_TRACE(sentence(name, ", ", n, " tokens, ", ranks, " ranks"));
        const Partition partition = make_partition(name, n, ranks, Mask::parse("causal", {n, n}));
        ASSERT_EQ(partition.name(), name);
        ASSERT_EQ(partition.ranks(), ranks);
        expect_exactly_once(partition, n);
        if (testing::Test::HasFatalFailure()) return;
      }
}

TEST(Partition, ShardsAreAsEvenAsTheLengthAllows) {
  for (Index n = 0; n < 70; ++n)
    for (int ranks = 1; ranks <= 9; ++ranks)
      for (const char* name : {"contiguous", "striped", "zigzag"}) {
        const Partition partition = make_partition(name, n, ranks, Mask::parse("full", {n, n}));
        Index least = n;
        for (Rank r = 0; r < ranks; ++r) least = std::min(least, partition.rows(r));
        EXPECT_LE(partition.largest() - least, 1) << name << ", " << n << " tokens, " << ranks << " ranks";
      }
}

TEST(Partition, TheSmallCasesLookAsDrawn) {
  const std::pair<const char*, const char*> drawn[]{
      {"contiguous", "00001111"}, {"zigzag", "00111100"}, {"striped", "01010101"}};
  for (const auto& [name, owners] : drawn) {
    const Partition partition = make_partition(name, 8, 2, Mask::parse("full", {8, 8}));
    for (Rank r = 0; r < 2; ++r)
      for (Index row = 0; row < partition.rows(r); ++row)
        EXPECT_EQ(owners[partition.position(r, row)], '0' + r) << name;
  }
}

TEST(Partition, AJoinedSeatOwnsItsRanksRowsInTheirOrder) {
  for (const char* name : names)
    for (const int size : {1, 2, 3, 6}) {
      const Partition ranks = make_partition(name, 53, 6, Mask::parse("causal", {53, 53})), seats = ranks.joined(size);
      ASSERT_EQ(seats.ranks(), 6 / size);
      expect_exactly_once(seats, 53);
      for (Rank seat = 0; seat < seats.ranks(); ++seat) {
        Index row = 0;
        for (Rank r = seat * size; r < (seat + 1) * size; ++r)
          for (Index i = 0; i < ranks.rows(r); ++i, ++row)
            ASSERT_EQ(seats.position(seat, row), ranks.position(r, i)) << name << " joined by " << size;
      }
    }
  for (const int size : {-1, 0, 4, 5, 12}) EXPECT_THROW(Partition::contiguous(6, 6).joined(size), Error) << size;
}

TEST(Partition, GivenRunsMustCoverEveryTokenExactlyOnce) {
  using Shards = std::vector<std::vector<annulus::Run>>;
  expect_exactly_once(Partition::of(7, {{{0, 4, 2}}, {{1, 3, 2}}, {}}, "by hand"), 7);
  expect_exactly_once(Partition::of(10, {{{0, 4, 3}}, {{1, 3, 3}}, {{2, 1, 1}, {5, 2, 3}}}, "by hand"), 10);
  expect_exactly_once(Partition::of(6, {{{0, 2, 1}}, {{2, 2, 2}}, {{3, 2, 2}}}, "by hand"), 6);  // strides differ
  expect_exactly_once(Partition::of(0, {{}, {}}, "by hand"), 0);
  const std::pair<const char*, Shards> wrong[]{
      {"no ranks", {}},
      {"a token is missing", {{{0, 3, 1}}}},
      {"one token too many", {{{0, 5, 1}}}},
      {"beyond the end", {{{1, 4, 1}}}},
      {"before the start", {{{-1, 4, 1}}}},
      {"an empty run", {{{0, 4, 1}, {2, 0, 1}}}},
      {"a stride of zero", {{{0, 4, 0}}}},
      {"the right number, but one twice and one never", {{{0, 2, 1}}, {{1, 2, 1}}}},
      {"the same stride and phase, overlapping", {{{0, 2, 2}}, {{0, 1, 1}, {1, 1, 1}}}},
      {"different strides that meet", {{{0, 2, 3}}, {{1, 2, 2}}}}};
  for (const auto& [what, shards] : wrong) EXPECT_THROW(Partition::of(4, shards, "by hand"), Error) << what;
}

// Random shards: of() takes them exactly when a count of every token says so.
TEST(Partition, GivenRunsAreTakenExactlyWhenCountingAgrees) {
  constexpr std::uint64_t seed = 8;
  std::mt19937_64 random(seed);
  int taken = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    const auto tokens = static_cast<Index>(1 + random() % 8);
    std::vector<std::vector<annulus::Run>> shards(1 + random() % 3);
    std::vector<int> owners(static_cast<std::size_t>(tokens));
    for (Index left = tokens; left > 0;) {
      const auto stride = static_cast<Index>(1 + random() % 3), first = static_cast<Index>(random()) & 7;
      if (first >= tokens) continue;
      const Index count = 1 + static_cast<Index>(random() % 8) % std::min(left, ceil_div(tokens - first, stride));
      const annulus::Run run{first, count, stride};
      for (Index i = 0; i < run.count; ++i) ++owners[static_cast<std::size_t>(run.at(i))];
      shards[random() % shards.size()].push_back(run);
      left -= run.count;
    }
    const bool sound = std::ranges::all_of(owners, [](int n) { return n == 1; });
    bool accepted = true;
    try {
      Partition::of(tokens, shards, "random");
    } catch (const Error&) {
      accepted = false;
    }
    ASSERT_EQ(accepted, sound) << "trial " << trial << ", seed " << seed;
    taken += accepted ? 1 : 0;
  }
  EXPECT_GT(taken, 100) << "too few sound partitions to mean anything";
}

TEST(Partition, AwkwardWeightsAndNamesAreRefusedInASentence) {
  const Mask mask = Mask::parse("causal", {12, 12});
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (const auto& weights : {std::vector<double>{1}, {1, 2, 3}, {1, 0}, {1, -1}, {nan, 1}, {1, inf}})
    EXPECT_THROW(Partition::balanced(mask, 2, weights), Error);
  EXPECT_THROW(make_partition("zigzag", 12, 2, mask, std::vector<double>{1, 2}), Error);
  EXPECT_THROW(make_partition("zig-zag", 12, 2, mask), Error);
  for (const char* name : names) EXPECT_THROW(make_partition(name, 12, 0, mask), Error) << name;
}

TEST(Partition, RanksBeyondItAreRefusedInASentence) {
  const Partition partition = Partition::contiguous(9, 2);
  for (const Rank rank : {-1, 2}) {
    EXPECT_THROW(partition.rows(rank), Error);
    EXPECT_THROW(partition.runs(rank), Error);
    EXPECT_THROW(partition.position(rank, 0), Error);
  }
}

TEST(Partition, WeightsShareOutRowsAndWork) {
  const Mask mask = Mask::parse("full", {1200, 1200});
  const Partition partition = Partition::balanced(mask, 3, std::vector<double>{1, 2, 3});
  expect_exactly_once(partition, 1200);
  for (Rank r = 0; r < 3; ++r)  // blocks are at most a 32nd of the mean share: half of one may go astray
    EXPECT_NEAR(static_cast<double>(partition.rows(r)), 200.0 * (r + 1), 400.0 / 8);
}

TEST(Partition, PositionsBeyond32BitsAreExact) {
  constexpr Index n = (Index{1} << 40) + 12345;
  for (const Partition& partition :
       {Partition::contiguous(n, 40000), Partition::zigzag(n, 40000), Partition::striped(n, 40000)}) {
    Index rows = 0, last = 0;
    for (Rank r = 0; r < partition.ranks(); ++r) {
      rows += partition.rows(r);
      for (const annulus::Run& run : partition.runs(r)) last = std::max(last, run.at(run.count - 1));
    }
    EXPECT_EQ(rows, n) << partition.name();
    EXPECT_EQ(last, n - 1) << partition.name();
  }
  EXPECT_EQ(Partition::striped(n, 4).position(3, n / 4 - 1), (n / 4 - 1) * 4 + 3);
}

}  // namespace
}  // namespace annulus

#include "annulus/geometry/range.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace annulus {
namespace {

Index pairs_by_counting(const Tile& tile) {
  Index total = 0;
  for (Index i = 0; i < tile.q.count(); ++i)
    for (Index j = 0; j < tile.k.count(); ++j) total += tile.band.contains(j - i) ? 1 : 0;
  return total;
}

TEST(Tile, PairsAreWhatCountingFinds) {
  constexpr std::uint64_t seed = 21;
  std::mt19937_64 random(seed);
  const auto between = [&](Index a, Index b) {
    return a + static_cast<Index>(random() % static_cast<std::uint64_t>(b - a + 1));
  };
  for (int trial = 0; trial < 5000; ++trial) {
    const Index q = between(0, 30), k = between(0, 30);
    Tile tile{{q, q + between(0, 14)}, {k, k + between(0, 14)}, {between(-20, 20), 0}};
    tile.band.hi = tile.band.lo + between(-2, 25);
    if (between(0, 4) == 0) tile.band.lo = -far;
    if (between(0, 4) == 0) tile.band.hi = far;
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", " << tile.q.count() << " x " << tile.k.count() << ", band "
                                    << tile.band.lo << " to " << tile.band.hi);
    ASSERT_EQ(tile.pairs(), pairs_by_counting(tile));
    Index by_row = 0;
    for (Index i = 0; i < tile.q.count(); ++i) by_row += tile.keys_of(i).count();
    ASSERT_EQ(by_row, tile.pairs());
    if (tile.q.count() > 0 && tile.k.count() > 0) {
      ASSERT_EQ(tile.full(), tile.pairs() == tile.q.count() * tile.k.count());
    }
  }
}

TEST(Tile, PairsBeyond32BitsAreExact) {
  for (const Index n : {Index{46'341}, Index{4} << 20, (Index{1} << 31) - 1, Index{1} << 31}) {
    const Range all{Index{1} << 33, (Index{1} << 33) + n};  // far from zero too
    EXPECT_EQ((Tile{all, all, {}}.pairs()), n * n);
    EXPECT_EQ((Tile{all, all, {-far, 0}}.pairs()), n % 2 == 0 ? n / 2 * (n + 1) : (n + 1) / 2 * n);
    EXPECT_EQ((Tile{all, all, {-4095, 0}}.pairs()), 4096 * n - Index{4095} * 4096 / 2);
    EXPECT_EQ((Tile{all, all, {n - 1, far}}.pairs()), 1);
    EXPECT_EQ((Tile{all, all, {n, far}}.pairs()), 0);
    EXPECT_TRUE((Tile{all, all, {-(n - 1), n - 1}}.full()));
    EXPECT_FALSE((Tile{all, all, {-(n - 2), n - 1}}.full()));
  }
}

TEST(Run, ClippingKeepsExactlyTheRowsInsideTheWindow) {
  for (Index first = -5; first < 6; ++first)
    for (Index count = 0; count < 5; ++count)
      for (Index stride = 1; stride < 5; ++stride)
        for (Index begin = -7; begin < 15; ++begin)
          for (Index end = begin; end < 18; ++end) {
            const annulus::Run run{first, count, stride};
            const Range kept = clip(run, {begin, end});
            for (Index i = 0; i < count; ++i)
              ASSERT_EQ(kept.contains(i), begin <= run.at(i) && run.at(i) < end)
                  << first << " + " << stride << " * " << i << " in " << begin << " to " << end;
          }
}

// Random ranges as sets of integers: the definition that united, without and count are held to.
class RangeLaws : public testing::Test {
 protected:
  std::vector<Range> random_ranges() {
    std::vector<Range> ranges(random_() % 6);
    for (Range& r : ranges) {
      r.begin = static_cast<Index>(random_() % 30);
      r.end = r.begin + static_cast<Index>(random_() % 8) - 1;  // empty and backward ones too
    }
    return ranges;
  }
  static std::set<Index> integers(const std::vector<Range>& ranges) {
    std::set<Index> all;
    for (const Range r : ranges)
      for (Index i = r.begin; i < r.end; ++i) all.insert(i);
    return all;
  }
  static bool sorted_and_disjoint(const std::vector<Range>& ranges) {
    for (std::size_t i = 0; i < ranges.size(); ++i)
      if (ranges[i].empty() || (i > 0 && ranges[i - 1].end > ranges[i].begin)) return false;
    return true;
  }
  static constexpr std::uint64_t seed = 17;

 private:
  std::mt19937_64 random_{seed};
};

TEST_F(RangeLaws, UnitedCoversTheSameIntegersWithRangesApart) {
  for (int trial = 0; trial < 2000; ++trial) {
    const auto ranges = random_ranges(), one = united(ranges);
    ASSERT_EQ(integers(one), integers(ranges)) << "seed " << seed << ", trial " << trial;
    for (std::size_t i = 1; i < one.size(); ++i) ASSERT_LT(one[i - 1].end, one[i].begin);
    ASSERT_EQ(united(one), one) << "uniting twice changes nothing";
    ASSERT_EQ(count(one), static_cast<Index>(integers(ranges).size()));
  }
}

TEST_F(RangeLaws, WithoutLeavesWhatIsOnlyInTheFirst) {
  for (int trial = 0; trial < 2000; ++trial) {
    const auto from = united(random_ranges()), remove = united(random_ranges()), left = without(from, remove);
    std::set<Index> expected = integers(from);
    for (const Index i : integers(remove)) expected.erase(i);
    ASSERT_EQ(integers(left), expected) << "seed " << seed << ", trial " << trial;
    ASSERT_TRUE(sorted_and_disjoint(left));
    ASSERT_TRUE(without(from, from).empty());
    ASSERT_EQ(without(from, {}), from);
  }
}

}  // namespace
}  // namespace annulus

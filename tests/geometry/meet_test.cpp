#include "annulus/geometry/meet.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "annulus/geometry/partition.hpp"

namespace annulus {
namespace {

// The law every plan rests on, over random masks, partitions, lengths and ranks.
TEST(Meet, EveryVisiblePairBelongsToExactlyOneTile) {
  std::mt19937_64 random(20261121);
  const auto up_to = [&](Index n) { return static_cast<Index>(random() % static_cast<std::uint64_t>(n + 1)); };
  for (int trial = 0; trial < 600; ++trial) {
    const int ranks = 1 + static_cast<int>(up_to(8));
    const Index n = up_to(60), keys = trial % 3 == 0 ? up_to(60) : n;
    Extent extent{n, keys, {0}};
    while (extent.documents.back() < n) extent.documents.push_back(std::min(n, extent.documents.back() + up_to(15)));
    std::string terms = trial % 2 == 0 ? "causal" : "full";
    if (up_to(1) == 0) terms += "+window:" + std::to_string(up_to(20)) + "," + std::to_string(up_to(9));
    if (up_to(1) == 0) terms += "+sink:" + std::to_string(up_to(7));
    if (n == keys && n > 0) {
      if (up_to(2) == 0) terms += "+documents";
      if (up_to(2) == 0) terms += "+prefix:" + std::to_string(up_to(n + 3));
      if (up_to(2) == 0) terms += "+global:0," + std::to_string(up_to(n - 1));
    }
    if (n != keys) extent.documents.clear();
    SCOPED_TRACE(terms + " over " + std::to_string(n) + " queries and " + std::to_string(keys) + " keys, ranks " +
                 std::to_string(ranks));
    const Mask mask = Mask::parse(terms, extent);
    for (const char* name : {"contiguous", "zigzag", "striped", "balanced"}) {
      const Partition q = make_partition(name, n, ranks, mask), k = make_partition(name, keys, ranks, mask);
      std::map<std::pair<Index, Index>, int> met;
      Index counted = 0;
      for (Rank a = 0; a < ranks; ++a)
        for (Rank b = 0; b < ranks; ++b)
          for (const Tile& tile : meet(q.runs(a), k.runs(b), mask)) {
            counted += tile.pairs();
            std::vector<bool> seen(static_cast<std::size_t>(tile.k.count()));
            bool full = true;
            for (Index i = 0; i < tile.q.count(); ++i) {
              const Range keys_seen = tile.keys_of(i);
              ASSERT_FALSE(keys_seen.empty()) << "a row of a tile sees nothing";
              full = full && keys_seen.count() == tile.k.count();
              for (Index j = keys_seen.begin; j < keys_seen.end; ++j) {
                seen[static_cast<std::size_t>(j)] = true;
                ++met[{q.position(a, tile.q.begin + i), k.position(b, tile.k.begin + j)}];
              }
            }
            ASSERT_EQ(full, tile.full());
            ASSERT_EQ(std::ranges::count(seen, false), 0) << "a key of a tile is unseen";
            ASSERT_EQ(q.position(a, tile.q.begin), tile.q_at);
            ASSERT_EQ(k.position(b, tile.k.begin), tile.k_at);
          }
      Index visible = 0;
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < keys; ++j) {
          if (!mask.visible(i, j)) continue;
          ++visible;
          ASSERT_EQ((met[{i, j}]), 1) << name << " pair " << i << ", " << j;
        }
      ASSERT_EQ(counted, visible);
      ASSERT_EQ(static_cast<Index>(met.size()), visible);
      ASSERT_EQ(mask.pairs(), visible);
    }
  }
}

TEST(Meet, CuttingATileByRowsLosesNoPair) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 500; ++trial) {
    const Index n = 1 + static_cast<Index>(random() % 30), lo = static_cast<Index>(random() % 40) - 30,
                hi = lo + static_cast<Index>(random() % 30);
    const annulus::Run rows{0, n, 1}, keys{static_cast<Index>(random() % 20), 25, 1};
    const Mask mask = Mask::of({{{0, 100}, {0, 100}, {lo, hi}}}, 100, 100, "band");
    for (const Tile& tile : meet({&rows, 1}, {&keys, 1}, mask)) {
      const Index step = 1 + static_cast<Index>(random() % 9);
      Index total = 0;
      for (Index r = 0; r < n; r += step) {
        const Tile part = cut(tile, {r, r + step});
        if (part.q.empty()) continue;
        total += part.pairs();
        for (Index i = 0; i < part.q.count(); ++i) {
          const Range seen = part.keys_of(i), whole = tile.keys_of(part.q.begin + i - tile.q.begin);
          EXPECT_EQ(seen.begin + part.k.begin, whole.begin + tile.k.begin);
          EXPECT_EQ(seen.end + part.k.begin, whole.end + tile.k.begin);
        }
        EXPECT_EQ(part.q_at - part.q.begin, tile.q_at - tile.q.begin);
        EXPECT_EQ(part.k_at - part.k.begin, tile.k_at - tile.k.begin);
      }
      EXPECT_EQ(total, tile.pairs());
    }
  }
}

}  // namespace
}  // namespace annulus

#include "kernel/cpu/fold.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "kernel/agreement.hpp"
#include "kernel/cpu/tiled.hpp"
#include "kernel/tile_twin.hpp"

namespace annulus::test {
namespace {

// Bands of every kind: open, closed on one side or both, narrower than there are queries.
Tile random_tile(std::mt19937& random, Range q, Index k_begin) {
  const auto pick = [&](Index least, Index most) { return std::uniform_int_distribution<Index>(least, most)(random); };
  const Index n = q.count(), keys = pick(1, 3000);
  Band band;
  if (pick(0, 2) > 0) band.hi = pick(0, keys);
  if (pick(0, 2) > 0) band.lo = pick(-n, std::min<Index>(0, band.hi));
  return cut(tile(q, {k_begin, k_begin + keys}, band), q);
}

TEST(Fold, EveryVisiblePairOfEveryMemberBelongsToExactlyOnePiece) {
  std::mt19937 random(51);
  Index foldings = 0;
  for (int n = 0; n < 300; ++n) {
    const Index queries = 1 + static_cast<Index>(random() % 47), members = 1 + static_cast<Index>(random() % 9);
    const Range first{0, std::max<Index>(1, queries / 2)}, all{0, queries};
    std::vector<Tile> tiles{random_tile(random, n % 2 == 0 ? all : first, 0)};
    if (n % 3 == 0) tiles.push_back(random_tile(random, all, 3000));
    std::erase_if(tiles, [](const Tile& t) { return t.q.empty(); });
    const auto folding = cpu::fold(tiles, {queries, members, 1 + n % 5, 48, n % 2 == 0 ? 16 : 48});
    if (!folding) continue;
    ++foldings;
    ASSERT_EQ(folding->rows % 16, 0);
    ASSERT_GE(folding->rows, queries * members);
    std::map<std::pair<Index, Index>, Index> keys_met;  // by query and member
    for (const cpu::Piece& piece : folding->pieces) {
      const Index share = piece.lane_begin / folding->rows;
      ASSERT_LT(share, folding->shares);
      ASSERT_LE(piece.lane_end, (share + 1) * folding->rows);
      for (Index lane = piece.lane_begin; lane < piece.lane_end; ++lane) {
        const Index row = lane % folding->rows;
        if (row < queries * members) keys_met[{row / members, row % members}] += piece.step_end - piece.step_begin;
        for (const Tile& t : tiles)  // and they are all visible
          if (row < queries * members && t.k.begin <= piece.step_begin && piece.step_end <= t.k.end) {
            const Index i = row / members - t.q.begin;
            ASSERT_TRUE(i >= 0 && i < t.q.count());
            ASSERT_LE(t.k.begin + t.keys_of(i).begin, piece.step_begin);
            ASSERT_GE(t.k.begin + t.keys_of(i).end, piece.step_end);
          }
      }
    }
    for (Index i = 0; i < queries; ++i) {
      Index visible = 0;
      for (const Tile& t : tiles)
        if (t.q.contains(i)) visible += t.keys_of(i - t.q.begin).count();
      for (Index m = 0; m < members; ++m) ASSERT_EQ((keys_met[{i, m}]), visible) << "query " << i << " member " << m;
    }
  }
  EXPECT_GT(foldings, 100);
}

TEST(Fold, IsForFewQueriesAndWhereItSavesLanes) {
  const auto folds = [](Index queries, Index members, Band band) {
    const std::vector<Tile> tiles{cut(tile({0, queries}, {0, 4096}, band), {0, queries})};
    return cpu::fold(tiles, {queries, members, 1, 48, 16}).has_value();
  };
  EXPECT_TRUE(folds(1, 1, {}));
  EXPECT_TRUE(folds(1, 8, {}));
  EXPECT_TRUE(folds(30, 8, {-far, 4066}));
  EXPECT_FALSE(folds(48, 8, {}));          // they fill a block
  EXPECT_FALSE(folds(40, 1, {-far, 10}));  // each sees other keys
}

TEST(Fold, NeighboursThatSeeTheSameKeysReadThemOnce) {
  const std::vector<Tile> tiles{tile({0, 1}, {0, 500}), tile({1, 3}, {0, 500}), tile({3, 4}, {0, 400})};
  EXPECT_EQ(cpu::fold(tiles, {4, 2, 1, 48, 16})->pieces.size(), 2);
}

TEST(Fold, ManyThreadsFindWorkInOneHeadOfManyKeys) {
  const std::vector<Tile> tiles{tile({0, 1}, {0, 65536})};
  EXPECT_EQ(cpu::fold(tiles, {1, 4, 1, 48, 16})->shares, 64);
  EXPECT_EQ(cpu::fold(tiles, {1, 4, 8, 48, 16})->shares, 8);
  EXPECT_EQ(cpu::fold(std::vector{tile({0, 1}, {0, 100})}, {1, 4, 1, 48, 16})->shares, 1);
  EXPECT_EQ(cpu::fold(tiles, {1, 4, 8, 48, 16, 8})->shares, 64) << "heads that are read together are one piece of work";
  EXPECT_EQ(cpu::fold(tiles, {1, 4, 8, 48, 16, 8})->heads_together, 8);
  EXPECT_EQ(cpu::fold({&tiles[0], 1}, {5, 4, 8, 48, 16, 8})->heads_together, 1) << "more than one block";
}

// One query and some, heads of a group that begins and ends inside another rank's share, several shares of keys.
TEST(Tiled, FewQueriesAgreeWithTheReferenceWhateverTheThreads) {
  const Problem heads{.query_heads = 9, .kv_heads = 3, .channels = 40, .value_channels = 24, .group = 4, .phase = 2};
  Share share(3);
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const Index queries : {1, 5, 23}) {
      share.next_round();
      Problem problem = heads;
      problem.type = type;
      problem.softmax_scale = 1 / std::sqrt(40.0);
      for (const Band band : {Band{}, Band{-far, 2600 - queries}, Band{-2, 2300}}) {
        if (!share.takes()) continue;
        const std::vector<Tile> tiles{tile({0, queries}, {0, 2600}, band), tile({0, queries}, {2600, 2611})};
        const Inputs in(problem, queries, 2611, 52);
        const Truth truth(tiles, in);
        for (const std::string& tier : runnable_tiers()) {
          SCOPED_TRACE(sentence(tier, ", ", name_of(type), ", ", queries, " queries, keys ", band.lo, " to ", band.hi));
          const auto kernel = make_tiled_kernel(in.problem, {.threads = 1}, tier);
          expect_forward(*kernel, tiles, in, truth);
          if (testing::Test::HasFatalFailure()) return;
          const ForwardResult one = forward_by(*kernel, tiles, in, in.v);
          for (const int threads : {2, 5}) {
            const auto other = make_tiled_kernel(in.problem, {.threads = threads}, tier);
            EXPECT_TRUE(one.partial.same_bits(forward_by(*other, tiles, in, in.v).partial)) << threads << " threads";
          }
        }
        const std::string_view tier = type == DType::bf16 ? "amx-bf16" : "amx-split";
        const std::string name = sentence("twin-", tier);
        SCOPED_TRACE(sentence(name, ", ", name_of(type), ", ", queries, " queries, keys ", band.lo, " to ", band.hi));
        expect_forward(*cpu::make_kernel_of_tier(in.problem, {}, name, tile_twin_tier(tier)), tiles, in, truth);
      }
    }
}

// Heads are read several at a time where their queries fit one block each, with sets that need not be full.
TEST(Tiled, AnyNumberOfHeadsIsReadTogether) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const Index kv_heads : {2, 8, 9, 19})
      for (const Index members : {1, 3}) {
        const Problem problem{.query_heads = kv_heads * members,
                              .kv_heads = kv_heads,
                              .channels = 20,
                              .value_channels = 33,
                              .group = members,
                              .type = type,
                              .softmax_scale = 0.2};
        const std::vector<Tile> tiles{tile({0, 2}, {0, 2200}, {-far, 2150}), tile({0, 2}, {2200, 2233})};
        const Inputs in(problem, 2, 2233, 55);
        const Truth truth(tiles, in);
        for (const std::string& tier : runnable_tiers()) {
          SCOPED_TRACE(sentence(tier, ", ", name_of(type), ", ", kv_heads, " heads, each for ", members));
          const auto kernel = make_tiled_kernel(problem, {.threads = 1}, tier);
          expect_forward(*kernel, tiles, in, truth);
          if (testing::Test::HasFatalFailure()) return;
          const ForwardResult one = forward_by(*kernel, tiles, in, in.v);
          const auto other = make_tiled_kernel(problem, {.threads = 5}, tier);
          EXPECT_TRUE(one.partial.same_bits(forward_by(*other, tiles, in, in.v).partial));
        }
      }
}

// A tier of tiles has groups of more lanes than its blocks: what is folded is rounded up to blocks only.
TEST(Fold, BlocksAreThoseThatForwardComputes) {
  const cpu::Shape shape{64, 64, DType::bf16, 1, 1, Index{512} * 1024};
  const cpu::Tier& tiles = tile_twin_tier("amx-bf16");
  EXPECT_LT(tiles.forward_lanes(shape), tiles.lanes);
  if (cpu::avx512_narrow != nullptr) {
    EXPECT_EQ(cpu::avx512_narrow->forward_lanes(shape), 16);
    EXPECT_EQ(cpu::avx512_tier->forward_lanes(shape), cpu::avx512_tier->lanes);
  }
}

// What lies in lanes without a row must not show, nor may a row that saw nothing.
TEST(Tiled, ASingleQueryOnTopOfOtherKeysAndOneThatSeesNone) {
  const Problem problem{.query_heads = 4, .kv_heads = 2, .channels = 16, .value_channels = 16, .group = 2};
  const Inputs in(problem, 2, 300, 53);
  const std::vector<Tile> first{tile({0, 1}, {0, 200})}, rest{tile({0, 1}, {200, 300})}, both{first[0], rest[0]};
  const Truth truth(both, in);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    const auto kernel = make_tiled_kernel(problem, {.threads = 2}, tier);
    ForwardResult apart = forward_by(*kernel, first, in, in.v);
    kernel->forward_and_finish(rest, in.q, {in.k, in.v}, apart.partial.view());
    for (Index h = 0; h < 4; ++h) {
      EXPECT_NEAR(apart.partial.top.at(0, h), truth.forward.lse.at(0, h), 4e-6);
      EXPECT_EQ(apart.partial.top.at(1, h), minus_infinity);
      for (Index c = 0; c < 16; ++c) {
        EXPECT_NEAR(apart.partial.out.at(0, h, c), truth.forward.partial.out.at(0, h, c), 4e-6);
        EXPECT_EQ(apart.partial.out.at(1, h, c), 0);
      }
    }
  }
}

// As in a tree before the queries have come: results may have more rows than there are queries, and those are left alone.
TEST(Tiled, RowsBeyondTheQueriesAreLeftAlone) {
  const Problem problem{.query_heads = 4, .kv_heads = 2, .channels = 16, .value_channels = 16, .group = 2};
  const Inputs in(problem, 3, 60, 54);
  for (const std::string& tier : runnable_tiers())
    for (const Index queries : {0, 1, 2}) {
      SCOPED_TRACE(sentence(tier, ", ", queries, " queries"));
      const auto kernel = make_tiled_kernel(problem, {}, tier);
      PartialSheets got(DType::f32, 3, 4, 16);
      got.out.fill(7);
      got.sum.fill(1);
      std::vector<Tile> tiles;
      if (queries > 0) tiles.push_back(tile({0, queries}, {0, 60}));
      kernel->forward_and_finish(tiles, in.q.rows().slice(0, queries), {in.k, in.v}, got.view());
      for (Index h = 0; h < 4; ++h) {
        EXPECT_EQ(got.out.at(2, h, 0), 7) << h;
        EXPECT_EQ(got.sum.at(2, h, 0), 1) << h;
        EXPECT_EQ(got.top.at(2, h, 0), minus_infinity) << h;
      }
    }
}

}  // namespace
}  // namespace annulus::test

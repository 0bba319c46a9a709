#include "kernel/cpu/groups.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernel/agreement.hpp"
#include "kernel/cpu/tiled.hpp"
#include "kernel/tile_twin.hpp"

namespace annulus::test {
namespace {

TEST(RowGroups, AreWholeLanesAndNeverMoreThanThereIsRoomFor) {
  for (const Index lanes : {8, 24, 48, 96})
    for (const Index most : {lanes, lanes + 1, 2 * lanes - 1, 640L, 2048L, 5000L})
      for (const Index rows : {1, 47, 640, 2111, 4096, 100'003})
        for (const Index wanted : {1, 2, 7, 64}) {
          if (most < lanes) continue;
          const Index size = cpu::rows_per_group(rows, most, lanes, wanted);
          EXPECT_EQ(size % lanes, 0) << rows << " rows, at most " << most << ", lanes " << lanes;
          EXPECT_LE(size, most) << rows << " rows, " << wanted << " groups, lanes " << lanes;
          EXPECT_GE(size, lanes);
          EXPECT_GE(ceil_div(rows, size), std::min(wanted, ceil_div(rows, lanes)) / 2)
              << rows << " rows, " << wanted << " groups wanted, lanes " << lanes;
        }
}

TEST(RowGroups, EveryTierHasRoomForItsLanesHoweverSmallTheCache) {
  std::vector<const cpu::Tier*> tiers{cpu::portable_tier, cpu::avx2_tier,      cpu::avx512_tier,  cpu::avx512_bf16_tier,
                                      cpu::amx_bf16_tier, cpu::amx_split_tier, cpu::amx_fast_tier};
  for (const char* name : {"amx-bf16", "amx-split", "amx-fast"}) tiers.push_back(&tile_twin_tier(name));
  for (const cpu::Tier* tier : tiers)
    for (const Index channels : {1, 64, 512})
      for (const DType type : {DType::f32, DType::bf16, DType::f16})
        for (const cpu::Pass pass : {cpu::Pass::forward, cpu::Pass::backward, cpu::Pass::observe}) {
          if (tier == nullptr) continue;  // not of this processor family
          const cpu::Shape shape{channels, channels, type, 1, 1, Index{32} * 1024};
          EXPECT_GE(tier->group_lanes(shape, pass), tier->lanes) << channels << " channels, width " << tier->width;
          EXPECT_EQ(tier->lanes % tier->forward_lanes(shape), 0) << channels << " channels, width " << tier->width;
        }
}

// Joined are neighbours that meet the same pieces, one after another in rows; else a part would wait for its successor.
TEST(RowGroups, AreJoinedOnlyWhereNoPartWaitsForALaterOne) {
  const auto counts = [](const std::vector<Tile>& tiles, Index most) {
    std::vector<cpu::Piece> pieces;
    for (const Tile& t : tiles) pieces.push_back(cpu::keys_in_lanes(t));
    const std::vector<cpu::RowGroup> groups = cpu::group_rows(pieces, 400, 100);
    std::vector<Index> found;
    Index first = 0, pairs = 0;
    for (const cpu::JoinedGroups& joined : cpu::joined(groups, most)) {
      EXPECT_EQ(joined.first, first);
      EXPECT_EQ(joined.begin, groups[static_cast<std::size_t>(first)].begin);
      EXPECT_EQ(joined.end, groups[static_cast<std::size_t>(first + joined.count - 1)].end);
      first += joined.count;
      pairs += joined.pairs;
      found.push_back(joined.count);
    }
    EXPECT_EQ(first, std::ssize(groups));
    Index all = 0;
    for (const Tile& t : tiles) all += t.pairs();
    EXPECT_EQ(pairs, all);
    return found;
  };
  using Counts = std::vector<Index>;
  const Tile causal = tile({0, 400}, {0, 400}, {-far, 0});
  EXPECT_EQ(counts({causal}, 400), Counts({4}));
  EXPECT_EQ(counts({causal}, 399), Counts({3, 1}));
  EXPECT_EQ(counts({causal}, 0), Counts({1, 1, 1, 1}));
  EXPECT_EQ(counts({tile({0, 200}, {0, 200}, {-far, 0}), tile({200, 400}, {0, 200}),
                    tile({200, 400}, {200, 400}, {-far, 0})},
                   400),
            Counts({2, 2}));
  EXPECT_EQ(counts({tile({200, 400}, {0, 400}), tile({0, 200}, {0, 400})}, 400), Counts({1, 1, 1, 1}));
  // longest first: later keys before earlier ones
  EXPECT_EQ(counts({tile({0, 400}, {0, 400}, {0, far})}, 400), Counts({1, 1, 1, 1}));
}

Index pairs_of(const cpu::Piece& piece) {
  Index pairs = 0;
  for (Index lane = piece.lane_begin; lane < piece.lane_end; ++lane)
    pairs += overlap(Range{piece.step_begin, piece.step_end}, Range{lane + piece.lo, lane + piece.hi + 1}).count();
  return pairs;
}

// However chunks are shared out over rounds, every pair of a piece is met once, in the chunk that the part names.
TEST(PackedChunks, HoldWhatEveryPieceSeesOnce) {
  for (const Index steps : {1, 16, 384, 512})
    for (const Index round : {1, 2, 1'000}) {
      std::vector<cpu::Piece> pieces;
      for (const Tile& t : {tile({0, 90}, {0, 1'000}, {-far, 0}), tile({90, 100}, {0, 400}),
                            tile({5, 6}, {1'000, 1'001}), tile({0, 100}, {700, 1'300}, {3, 9})})
        pieces.push_back(cpu::queries_in_lanes(t));
      const cpu::Rounds rounds = cpu::cut_rounds(pieces, steps, round);
      const std::vector<std::size_t> last = cpu::last_rounds(rounds, 101, 10);
      EXPECT_EQ(last.back(), rounds.pieces.size()) << "no piece has row 100";
      std::vector<Index> seen(pieces.size());
      for (std::size_t k = 0; k < rounds.pieces.size(); ++k) {
        const std::span<const cpu::Chunk> chunks = rounds.chunks_of(k);
        EXPECT_LE(std::ssize(chunks), std::min(round, rounds.at_once));
        for (const cpu::Piece& part : rounds.pieces[k]) {
          for (Index lane = part.lane_begin; lane < part.lane_end; ++lane)
            EXPECT_GE(last[static_cast<std::size_t>(lane / 10)], k);
          const auto of = std::ranges::find_if(
              pieces, [&](const cpu::Piece& piece) { return piece.lo == part.lo && piece.hi == part.hi; });
          ASSERT_NE(of, pieces.end());
          EXPECT_EQ(part.step_at - part.step_begin * part.stride, of->step_at - of->step_begin * of->stride);
          EXPECT_EQ(part.lane_at - part.lane_begin * part.stride, of->lane_at - of->lane_begin * of->stride);
          EXPECT_GE(part.lane_begin, of->lane_begin);
          EXPECT_LE(part.lane_end, of->lane_end);
          seen[static_cast<std::size_t>(of - pieces.begin())] += pairs_of(part);
          for (Index step = part.step_begin; step < part.step_end; ++step) {
            const Index n = part.chunk + (step - part.step_begin) / steps;
            ASSERT_LT(n, std::ssize(chunks));
            const cpu::Chunk& chunk = chunks[static_cast<std::size_t>(n)];
            EXPECT_EQ(step - chunk.from, (step - part.step_begin) % steps);
            EXPECT_LT(step - chunk.from, chunk.size);
          }
        }
      }
      for (std::size_t n = 0; n < pieces.size(); ++n) EXPECT_EQ(seen[n], pairs_of(pieces[n]));
    }
}

TEST(RowGroups, AsManyRowsAsFillAGroupAndMore) {
  // few channels, so that a group is as large as it gets, and more rows than one holds; a window keeps the oracle quick
  for (const DType type : {DType::bf16, DType::f32}) {
    const Inputs in(problem_of(8, 8, type), 4'150, 4'150, 24);
    const std::vector<Tile> tiles{tile({0, 4'150}, {0, 4'150}, {-40, 0})};
    const Truth truth(tiles, in);
    for (const std::string& tier : runnable_tiers()) {
      const auto kernel = make_tiled_kernel(in.problem, {.threads = 1}, tier);
      expect_forward(*kernel, tiles, in, truth);
      expect_backward(*kernel, tiles, in, truth);
    }
  }
}

}  // namespace
}  // namespace annulus::test

#include "kernel/cuda/jobs.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "kernel/cuda/body.hpp"
#include "kernel/support.hpp"

namespace annulus::test {
namespace {

using cuda::Job;
using cuda::Side;

std::vector<std::vector<Tile>> many_tilings() {
  std::vector<std::vector<Tile>> all;
  for (const Layout& layout : layouts()) all.push_back(layout.tiles);
  std::mt19937 random(3);
  const auto number = [&](Index from, Index to) { return std::uniform_int_distribution<Index>(from, to)(random); };
  for (int n = 0; n < 40; ++n) {
    std::vector<Tile> tiles;
    for (Index t = number(1, 6); t > 0; --t) {
      const Index q = number(0, 100), k = number(0, 100), queries = number(1, 150), keys = number(1, 150);
      const Index lo = number(-queries, 0), hi = number(0, keys);
      Tile one = tile({q, q + queries}, {k, k + keys}, {number(0, 3) == 0 ? -far : lo, number(0, 3) == 0 ? far : hi});
      one = cut(one, one.q);
      if (!one.q.empty()) tiles.push_back(one);
    }
    all.push_back(tiles);
  }
  return all;
}

// Every visible pair of every tile is met by exactly one job, in a block that says it is seen.
TEST(CudaJobs, MeetEveryVisiblePairOfEveryTileExactlyOnce) {
  for (const auto& tiles : many_tilings())
    for (const Side side : {Side::queries, Side::keys})
      for (const Index rows : {16, 64}) {
        std::map<std::tuple<int, Index, Index>, int> met;
        const cuda::JobTable table = cuda::make_jobs(tiles, side, rows);
        for (const Job& job : table.jobs) {
          ASSERT_LE(job.end - job.begin, rows);
          for (Index n = job.first; n < job.last; ++n) {
            const int t = table.tiles_of[static_cast<std::size_t>(n)];
            cuda::Blocks blocks(tiles[static_cast<std::size_t>(t)], job, side, 32);
            while (blocks.more()) {
              const cuda::Block block = blocks.next();
              ASSERT_GE(block.count, 1);
              ASSERT_LE(block.count, 32);
              for (int r = 0; r < job.end - job.begin; ++r)
                for (int c = 0; c < 32; ++c) {
                  if (!block.sees(r, c)) continue;
                  const Index ours = job.begin + r, theirs = block.first + c;
                  ++met[side == Side::queries ? std::tuple{t, ours, theirs} : std::tuple{t, theirs, ours}];
                }
            }
          }
        }
        Index pairs = 0;
        for (std::size_t t = 0; t < tiles.size(); ++t) {
          pairs += tiles[t].pairs();
          for (Index i = 0; i < tiles[t].q.count(); ++i)
            for (Index j = tiles[t].keys_of(i).begin; j < tiles[t].keys_of(i).end; ++j)
              ASSERT_EQ((met[{static_cast<int>(t), tiles[t].q.begin + i, tiles[t].k.begin + j}]), 1);
        }
        ASSERT_EQ(static_cast<Index>(met.size()), pairs);
      }
}

TEST(CudaJobs, ShareNoRowAndPutTheMostWorkFirst) {
  for (const auto& tiles : many_tilings())
    for (const Side side : {Side::queries, Side::keys}) {
      std::vector<bool> taken(600);
      for (const Job& job : cuda::make_jobs(tiles, side, 64).jobs)
        for (Index row = job.begin; row < job.end; ++row) {
          ASSERT_FALSE(taken[static_cast<std::size_t>(row)]);
          taken[static_cast<std::size_t>(row)] = true;
        }
      ASSERT_EQ(taken, touched(tiles, 600, side == Side::keys));
    }
  const std::vector<Tile> causal{tile({0, 256}, {0, 256}, {-far, 0})};
  const auto jobs = cuda::make_jobs(causal, Side::queries, 64).jobs;
  ASSERT_EQ(jobs.size(), 4U);
  EXPECT_EQ(jobs.front().begin, 192);
  EXPECT_EQ(jobs.back().begin, 0);
}

}  // namespace
}  // namespace annulus::test

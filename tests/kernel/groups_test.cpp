#include "kernel/cpu/groups.hpp"

#include <gtest/gtest.h>

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

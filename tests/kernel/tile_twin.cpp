#include "kernel/tile_twin.hpp"

#include "kernel/cpu/tile_backward.hpp"
#include "kernel/cpu/tile_forward.hpp"
#include "kernel/cpu/tile_tiers.hpp"

namespace annulus::test {
namespace {

const cpu::TileForward* const code = &cpu::tile_forward;

constexpr cpu::Tier pairs_forward = cpu::with_tiles<&code, cpu::Tiling::pairs>(cpu::table),
                    split_forward = cpu::with_tiles<&code, cpu::Tiling::split>(cpu::table),
                    fast_forward = cpu::with_tiles<&code, cpu::Tiling::fast>(cpu::table);
constexpr cpu::Tier pairs = cpu::with_tile_gradients<pairs_forward, 0>();
constexpr cpu::Tier split = cpu::with_tile_gradients<split_forward, 3>();
constexpr cpu::Tier fast = cpu::with_tile_gradients<fast_forward, 2>();

}  // namespace

const cpu::Tier& tile_twin_tier(std::string_view tier) {
  return tier == "amx-bf16" ? pairs : tier == "amx-split" ? split : fast;
}

}  // namespace annulus::test

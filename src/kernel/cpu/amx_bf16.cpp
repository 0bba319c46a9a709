// AVX-512 with AMX tiles for bf16 (tiers.cmake); empty elsewhere.
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "kernel/cpu/table.hpp"
#include "kernel/cpu/tile_backward.hpp"
#include "kernel/cpu/tile_products.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier forward_table = with_tiles(table), tiles_table = with_tile_gradients<forward_table>();

}  // namespace

const Tier* const amx_bf16_tier = &tiles_table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const amx_bf16_tier = nullptr;

}  // namespace annulus::cpu
#endif

// AVX-512 with AMX tiles for forward (tiers.cmake); empty elsewhere.
#if defined(ANNULUS_AMX)  // tiers.cmake; compilers differ in the name of their own macro
#include "kernel/cpu/tile_backward.hpp"
#include "kernel/cpu/tile_tiers.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier pairs_forward = with_tiles<&amx_forward, Tiling::pairs>(table),
               split_forward = with_tiles<&amx_forward, Tiling::split>(table),
               fast_forward = with_tiles<&amx_forward, Tiling::fast>(table);
constexpr Tier pairs_table = with_tile_gradients<pairs_forward, 0>();
constexpr Tier split_table = with_tile_gradients<split_forward, 3>();
constexpr Tier fast_table = with_tile_gradients<fast_forward, 2>();

}  // namespace

const Tier* const amx_bf16_tier = &pairs_table;
const Tier* const amx_split_tier = &split_table;
const Tier* const amx_fast_tier = &fast_table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const amx_bf16_tier = nullptr;
const Tier* const amx_split_tier = nullptr;
const Tier* const amx_fast_tier = nullptr;

}  // namespace annulus::cpu
#endif

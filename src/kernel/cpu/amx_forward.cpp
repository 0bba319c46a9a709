// Forward with AMX tiles (tiers.cmake), two tiles of lanes wide; empty elsewhere.
#if defined(ANNULUS_AMX)  // tiers.cmake; compilers differ in the name of their own macro
#define ANNULUS_VECTORS 2
#include "kernel/cpu/tile_forward.hpp"

namespace annulus::cpu {

const TileForward* const amx_forward = &tile_forward;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const TileForward* const amx_forward = nullptr;

}  // namespace annulus::cpu
#endif

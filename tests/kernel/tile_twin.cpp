// The tier of AMX with the software twin of its tile registers, in the vectors that every processor has.
#include "kernel/tile_twin.hpp"

#include "kernel/cpu/table.hpp"
#include "kernel/cpu/tile_backward.hpp"
#include "kernel/cpu/tile_products.hpp"

namespace annulus::test {
namespace {

constexpr cpu::Tier forward_table = cpu::with_tiles(cpu::table), table = cpu::with_tile_gradients<forward_table>();

}  // namespace

const cpu::Tier& tile_twin_tier() { return table; }

}  // namespace annulus::test

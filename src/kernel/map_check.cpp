#include "kernel/map_check.hpp"

#include "annulus/base/error.hpp"

namespace annulus {

void check_map(std::span<const Tile> tiles, const Problem& p, const Observation& into) {
  if (into.block_mass.empty()) return;
  require(into.block_tokens > 0, "block_tokens must be positive, but is ", into.block_tokens);
  require(static_cast<Index>(into.block_mass.size()) >= p.query_heads * into.query_blocks * into.key_blocks,
          "block_mass must hold heads x query blocks x key blocks = ", p.query_heads, " x ", into.query_blocks, " x ",
          into.key_blocks, ", but holds ", into.block_mass.size());
  for (const Tile& tile : tiles) {
    const Index query = tile.q_at + (tile.q.count() - 1) * tile.stride,
                key = tile.k_at + (tile.k.count() - 1) * tile.stride;
    require(tile.q_at >= 0 && tile.k_at >= 0 && query / into.block_tokens < into.query_blocks &&
                key / into.block_tokens < into.key_blocks,
            "the map must hold every token: the last query is ", query, ", the last key ", key, ", blocks of ",
            into.block_tokens, ": ", into.query_blocks, " x ", into.key_blocks);
  }
}

}  // namespace annulus

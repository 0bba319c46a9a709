#pragma once
#include "kernel/cpu/forward.hpp"

// Forward in blocks of a single vector of lanes (ANNULUS_VECTORS), for few query rows: what is computed for lanes without a
// row is a third of what it is in whole blocks. What remains is reading: an item may have several heads, whose rows lie side by
// side, where all their queries fit one block each (32 heads of f32 keys: 85 ms where head by head took 104).

namespace annulus::cpu {
namespace {

static_assert(vectors == 1);

Index narrow_lanes(const Shape& shape, Pass) { return lanes * blocks_of(shape); }
Index narrow_floats(const Shape& shape, Pass) {
  return most(forward_room(shape, nullptr).floats, most_heads * forward_room(shape, 1, nullptr).floats);
}
/// Until their rows together are a page, within which processors guess what comes next.
Index narrow_heads(const Shape& shape) {
  constexpr Index page = 4096;
  return least(most_heads, most(1, page / (shape.channels * bytes_of_number(shape.type))));
}
ChunkForm no_chunks(const Shape&) { return {0, 0}; }
Index block_lanes(const Shape&) { return lanes; }

constexpr Tier narrow_table(void (*run)(const ForwardItem&, float*)) {
  Tier tier{};
  tier.lanes = lanes;
  tier.width = width;
  tier.group_lanes = narrow_lanes;
  tier.scratch_floats = narrow_floats;
  tier.forward = run;
  tier.chunks = no_chunks;
  tier.forward_lanes = block_lanes;
  tier.heads_together = narrow_heads;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/forward.hpp"

// Forward in blocks of a single vector of lanes (ANNULUS_VECTORS), for few query rows: what is computed for lanes without a
// row is a third of what it is in whole blocks.

namespace annulus::cpu {
namespace {

static_assert(vectors == 1);

Index narrow_lanes(const Shape& shape, Pass) { return lanes * blocks_of(shape); }
Index narrow_floats(const Shape& shape, Pass) { return forward_room(shape, nullptr).floats; }
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
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

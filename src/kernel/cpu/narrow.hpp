#pragma once
#include "kernel/cpu/rowwise.hpp"

// Forward in blocks of a single vector of lanes (ANNULUS_VECTORS), for few query rows: what is computed for lanes without a
// row is a third of what it is in whole blocks. What remains is reading: where all queries fit one block, an item has several
// heads, whose rows lie side by side; and the fewest rows are not laid in lanes at all (rowwise.hpp).

namespace annulus::cpu {
namespace {

static_assert(vectors == 1);

Index narrow_lanes(const Shape& shape, Pass) { return lanes * blocks_of(shape); }
Index narrow_floats(const Shape& shape, Pass) {
  const Index one_block_each = most_heads * forward_room(shape, 1, nullptr).floats;
  return most(most(forward_room(shape, nullptr).floats, one_block_each), rowwise_floats(shape));
}
/// Until their rows together are a page, within which processors guess what comes next.
Index narrow_heads(const Shape& shape) {
  constexpr Index page = 4096;
  return least(most_heads, most(1, page / (shape.channels * bytes_of_number(shape.type))));
}
ChunkForm no_chunks(const Shape&) { return {0, 0}; }
Index block_lanes(const Shape&) { return lanes; }

template <void (*run)(const ForwardItem&, float*)>
void narrow_forward(const ForwardItem& item, float* scratch) {
  return is_rowwise(item) ? forward_rowwise(item, scratch) : run(item, scratch);
}

template <void (*run)(const ForwardItem&, float*)>
constexpr Tier narrow_table() {
  Tier tier{};
  tier.lanes = lanes;
  tier.width = width;
  tier.group_lanes = narrow_lanes;
  tier.scratch_floats = narrow_floats;
  tier.forward = narrow_forward<run>;
  tier.chunks = no_chunks;
  tier.forward_lanes = block_lanes;
  tier.heads_together = narrow_heads;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include <span>
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/range.hpp"

namespace annulus {

/// Everything that the queries of some runs see among the keys of some runs, as disjoint tiles; each visible pair
/// belongs to exactly one tile, and a tile has no row and no key without a pair. Rows are numbered run after run.
/// Precondition: all runs have the same stride (runs of one token fit any stride). Throws Error otherwise.
std::vector<Tile> meet(std::span<const Run> queries, std::span<const Run> keys, const Mask& mask);

Index pairs(std::span<const Tile> tiles);

}  // namespace annulus

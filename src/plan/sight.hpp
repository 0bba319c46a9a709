#pragma once
#include <span>
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/partition.hpp"
#include "annulus/geometry/range.hpp"

namespace annulus {

/// What the rows that stay at a seat see of a block that travels: how many pairs, and which of its rows, as united().
struct Sight {
  Index pairs = 0;
  std::vector<Range> rows;
  bool none() const { return pairs == 0; }
};

/// Counts what meet() would make tiles of. into: overwritten; its memory is used again.
void look(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into);
/// The same for an ordinary mask, without making tiles: some 10 ns per pair of runs.
void look_at_ordinary(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into);
/// Whether one band holds for all queries and keys (full, causal, window), and all runs have strides that fit.
bool is_ordinary(const Partition& stay, const Partition& travel, const Mask& mask);

/// Every row of `inner` lies in `outer`; both as united() returns them.
bool inside(std::span<const Range> inner, std::span<const Range> outer);

}  // namespace annulus

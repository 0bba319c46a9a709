#pragma once
#include <span>
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/partition.hpp"
#include "annulus/geometry/range.hpp"
#include "plan/pace.hpp"

namespace annulus {

/// What the rows that stay at a seat see of a block that travels: how many pairs, which of its rows, as united(), and what
/// computing them takes in each pass, where paces are given.
struct Sight {
  Index pairs = 0;
  std::vector<Range> rows;
  const Paces* paces = nullptr;
  bool backward = false;  ///< price that pass, too
  double forward_seconds = 0, backward_seconds = 0;
  bool none() const { return pairs == 0; }
};

/// Counts what meet() would make tiles of, without making them. into: overwritten but for the paces; its memory is used again.
/// Throws Error as meet() does.
void look(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into);
/// The same for an ordinary mask: some 10 ns per pair of runs.
void look_at_ordinary(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into);
/// Whether one band holds for all queries and keys (full, causal, window), and all runs have strides that fit.
bool is_ordinary(const Partition& stay, const Partition& travel, const Mask& mask);

/// Every row of `inner` lies in `outer`; both as united() returns them.
bool inside(std::span<const Range> inner, std::span<const Range> outer);

}  // namespace annulus

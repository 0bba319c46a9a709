#pragma once
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/partition.hpp"

namespace annulus {

/// For every seat, the seats whose keys its queries may see, as united() returns them: exactly those when the partition
/// is in order (contiguous, zigzag) or its runs are dense and few of them are seen (balanced), all otherwise. Never one too
/// few.
std::vector<std::vector<Range>> find_reach(const Partition& queries, const Partition& keys, const Mask& mask);

}  // namespace annulus

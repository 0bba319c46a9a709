#pragma once
#include <span>

#include "annulus/kernel/kernel.hpp"

namespace annulus {

/// Throws Error (usage) unless the map of `into`, when there is one, holds every token of the tiles.
void check_map(std::span<const Tile> tiles, const Problem& problem, const Observation& into);

}  // namespace annulus

#pragma once
#include "kernel/cpu/tier.hpp"

namespace annulus::test {

/// Runs everywhere; as slow as it is plain.
const cpu::Tier& tile_twin_tier();

}  // namespace annulus::test

#pragma once
#include <string_view>

#include "kernel/cpu/tier.hpp"

namespace annulus::test {

/// The tiers of AMX with the software twin of its tile registers, in the vectors that every processor has: they run
/// everywhere, as slow as they are plain. tier: "amx-bf16", "amx-split" or "amx-fast".
const cpu::Tier& tile_twin_tier(std::string_view tier);

}  // namespace annulus::test

#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "annulus/kernel/kernel.hpp"

namespace annulus {

/// The blocked CPU kernel in the tier of instructions asked for: "portable", "avx2" or "avx512".
/// Throws Error (usage) when this machine cannot run it; cpu_tier_refusal says why.
std::unique_ptr<Kernel> make_tiled_kernel(const Problem& problem, const KernelOptions& options, std::string_view tier);

/// Tiers, best first, whether or not they run here.
std::vector<std::string_view> cpu_tiers();
/// Empty when the processor and the operating system permit the tier; else a phrase that names what is missing.
std::string cpu_tier_refusal(std::string_view tier);

}  // namespace annulus

#pragma once
#include <memory>

#include "annulus/kernel/kernel.hpp"
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

/// The blocked kernel on the code of any tier, whether or not it is in the table of make_tiled_kernel: a test brings one
/// of its own. name and tier must outlive the kernel; the processor must be able to run the tier. packed_bytes: as much of
/// keys and values is packed at a time, or one chunk.
std::unique_ptr<Kernel> make_kernel_of_tier(const Problem& problem, const KernelOptions& options, std::string_view name,
                                            const Tier& tier, Index packed_bytes = Index{32} << 20U);

}  // namespace annulus::cpu

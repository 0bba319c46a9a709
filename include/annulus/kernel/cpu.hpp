#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "annulus/kernel/kernel.hpp"

namespace annulus {

/// The blocked CPU kernel in the tier of instructions asked for: "portable", "avx2", "avx512",
/// "avx512-bf16", "amx-bf16", "amx-split" or "amx-fast".
/// f32 forward errs by at most 1e-6 max(1, S) of a row's largest sum of |p v|, S being the size of the scores (1 for
/// normal q and k and the scale 1/sqrt(channels)), for any number of keys: a score of size S is itself rounded to a few
/// S 2^-24, and that is the relative error of its exponential. The same holds for bf16 and f16 inputs, taken as they are,
/// except that the tiers "...-bf16" round probabilities to bf16 for bf16 inputs: out then errs by up to 2^-8 of that more.
/// "amx-split" computes f32 and f16 as exact sums of bf16 terms: the bound of f32 holds; with f16 inputs that of lse, while out
/// errs by up to 2^-16 more, because probabilities keep 16 bits. "amx-fast" keeps 16 bits of everything: errors of 2e-5
/// max(1, S) in the mean and three times as much at most, in out and lse. Where numbers cannot be split (above 2^60, values
/// below 2^-60) both compute without tiles. Tiles take subnormal bf16 inputs for 0. Gradients of f32 come in the same terms:
/// to 5e-6 of their sums of magnitudes with "amx-split" as without tiles, and sixty times as coarse with "amx-fast".
/// Throws Error (usage) when this machine cannot run it; cpu_tier_refusal says why.
std::unique_ptr<Kernel> make_tiled_kernel(const Problem& problem, const KernelOptions& options, std::string_view tier);

/// Tiers, best first, whether or not they run here.
std::vector<std::string_view> cpu_tiers();
/// Instruction sets that tiers use, named as in Linux's /proc/cpuinfo, and whether processor and operating system offer them.
struct CpuFeature {
  std::string_view name;
  bool offered = false;
};
std::vector<CpuFeature> cpu_features();
/// Empty when the processor and the operating system permit the tier; else a phrase that names what is missing.
std::string cpu_tier_refusal(std::string_view tier);
/// Are products of bf16 pairs (the tier "avx512-bf16") faster than f32 ones on this processor? Some have them only in
/// name. Measured once, in 100 microseconds; the tier must be able to run here.
bool cpu_pairs_pay();

}  // namespace annulus

// Blocks of eight lanes (tiers.cmake); empty elsewhere.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define ANNULUS_VECTORS 1
#include "kernel/cpu/narrow.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier table = narrow_table<forward<SingleOperands>>();

}  // namespace

const Tier* const avx2_narrow = &table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const avx2_narrow = nullptr;

}  // namespace annulus::cpu
#endif

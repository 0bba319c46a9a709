// Vectors of eight floats: compiled with -mavx2 -mfma -mf16c (tiers.cmake), and empty elsewhere.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kernel/cpu/table.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier narrowing_table = with_narrow(table, &avx2_narrow);

}  // namespace

const Tier* const avx2_tier = &narrowing_table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const avx2_tier = nullptr;

}  // namespace annulus::cpu
#endif

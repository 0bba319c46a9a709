// Vectors of sixteen floats: compiled with AVX-512 F, BW, DQ and VL (tiers.cmake), and empty elsewhere.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "kernel/cpu/table.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier narrowing_table = with_narrow(table, &avx512_narrow);

}  // namespace

const Tier* const avx512_tier = &narrowing_table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const avx512_tier = nullptr;

}  // namespace annulus::cpu
#endif

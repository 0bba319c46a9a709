// Blocks of sixteen lanes (tiers.cmake); empty elsewhere.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define ANNULUS_VECTORS 1
#include "kernel/cpu/narrow.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier table = narrow_table<forward<SingleOperands>>();

}  // namespace

const Tier* const avx512_narrow = &table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const avx512_narrow = nullptr;

}  // namespace annulus::cpu
#endif

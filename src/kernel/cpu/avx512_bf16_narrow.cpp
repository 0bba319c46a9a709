// Blocks of sixteen lanes with products of bf16 pairs (tiers.cmake); empty elsewhere.
#if defined(__AVX512BF16__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define ANNULUS_VECTORS 1
#include "kernel/cpu/narrow.hpp"
#include "kernel/cpu/pairs.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier table = narrow_table<forward_with_pairs>();

}  // namespace

const Tier* const avx512_bf16_narrow = &table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const avx512_bf16_narrow = nullptr;

}  // namespace annulus::cpu
#endif

// AVX-512 with products of bf16 pairs (tiers.cmake); empty elsewhere.
#if defined(__AVX512BF16__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "kernel/cpu/pairs.hpp"
#include "kernel/cpu/table.hpp"

namespace annulus::cpu {
namespace {

constexpr Tier with_pairs(Tier tier) {
  tier.forward = forward_with_pairs;
  tier.width = width * Pairs::in_word;
  tier.peak = peak<Pairs>;
  return tier;
}
constexpr Tier pairs_table = with_pairs(table);

}  // namespace

const Tier* const avx512_bf16_tier = &pairs_table;

}  // namespace annulus::cpu
#else
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

const Tier* const avx512_bf16_tier = nullptr;

}  // namespace annulus::cpu
#endif

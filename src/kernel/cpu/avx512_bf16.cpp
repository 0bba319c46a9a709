// AVX-512 with products of bf16 pairs (tiers.cmake); empty elsewhere.
#if defined(__AVX512BF16__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "kernel/cpu/pair_backward.hpp"
#include "kernel/cpu/pair_observe.hpp"
#include "kernel/cpu/table.hpp"

namespace annulus::cpu {
namespace {

Index scratch_floats_with_pairs(const Shape& shape, Pass pass) {
  if (pass == Pass::forward || shape.type != DType::bf16) return scratch_floats(shape, pass);
  return pass == Pass::backward ? backward_room<PairGradients>(shape, PairGradients::blocks(shape), nullptr).floats
                                : trace_room<PairScores>(shape, nullptr).floats;
}

Index group_lanes_with_pairs(const Shape& shape, Pass pass) {
  if (pass == Pass::backward && shape.type == DType::bf16) return lanes * PairGradients::blocks(shape);
  return group_lanes(shape, pass);
}

constexpr Tier with_pairs(Tier tier) {
  tier.group_lanes = group_lanes_with_pairs;
  tier.scratch_floats = scratch_floats_with_pairs;
  tier.forward = forward_with_pairs;
  tier.gradients = gradients_with_pairs;
  tier.row_traces = row_traces_with_pairs;
  tier.width = width * Pairs::in_word;
  tier.peak = peak<Pairs>;
  tier.narrow = &avx512_bf16_narrow;
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

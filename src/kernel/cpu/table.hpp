#pragma once
#include "kernel/cpu/backward.hpp"
#include "kernel/cpu/forward.hpp"
#include "kernel/cpu/observe.hpp"

namespace annulus::cpu {
namespace {

/// 12 independent chains of multiply-adds, eight links each per repeat: what the arithmetic units can do.
template <class Words>
double peak(Index repeats) {
  Vec chain[12];
  for (int i = 0; i < 12; ++i) chain[i] = splat(static_cast<float>(i));
  const Vec x = splat(1.0F - 1.0F / static_cast<float>(repeats + 2)), y = splat(1.0F / static_cast<float>(repeats + 3));
  for (Index n = 0; n < repeats; ++n)
#pragma GCC unroll 8
    for (int link = 0; link < 8; ++link)
#pragma GCC unroll 12
      for (int i = 0; i < 12; ++i) chain[i] = Words::add(y, chain[i], x);
  double sum = 0;
  for (const Vec& c : chain)
    for (int i = 0; i < width; ++i) sum += static_cast<double>(c[i]);
  return sum;
}

Index group_lanes(const Shape& shape, Pass pass) {
  return lanes * (pass == Pass::backward ? SingleGradients::blocks(shape) : blocks_of(shape));
}

Index scratch_floats(const Shape& shape, Pass pass) {
  switch (pass) {
    case Pass::forward:
      return forward_room(shape, nullptr).floats;
    case Pass::backward:
      return backward_room<SingleGradients>(shape, SingleGradients::blocks(shape), nullptr).floats;
    case Pass::observe:
      return trace_room<SingleScores>(shape, nullptr).floats;
  }
  return 0;
}

/// Groups pack for themselves.
ChunkForm no_chunks(const Shape&) { return {0, 0}; }
Index block_lanes(const Shape&) { return lanes; }

constexpr Tier table = {.lanes = lanes,
                        .width = width,
                        .group_lanes = group_lanes,
                        .scratch_floats = scratch_floats,
                        .forward = forward<SingleOperands>,
                        .gradients = gradients<SingleGradients>,
                        .row_traces = row_traces<SingleScores>,
                        .peak = peak<Singles>,
                        .chunks = no_chunks,
                        .pack = nullptr,
                        .part_grain = block_lanes,
                        .forward_lanes = block_lanes,
                        .heads_together = nullptr,
                        .narrow = nullptr};

constexpr Tier with_narrow(Tier tier, const Tier* const* narrow) {
  tier.narrow = narrow;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include <span>

#include "annulus/kernel/kernel.hpp"

// What a call must bring, checked once at the kernel's boundary. Each throws Error (usage) with the rule and the
// values.

namespace annulus::cpu {

/// The problem itself: heads, channels, group, type.
void check_problem(const Problem& problem);
void check_forward(const Problem&, std::span<const Tile>, const Rows& q, const KeyValue&, const Partial&);
void check_backward(const Problem&, std::span<const Tile>, const Saved&, const KeyValue&, const Gradients&);
void check_observe(const Problem&, std::span<const Tile>, const Rows& q, const Rows& k, const Rows& lse,
                   const Observation&);

}  // namespace annulus::cpu

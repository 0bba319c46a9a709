#pragma once
#include <span>

#include "annulus/kernel/kernel.hpp"

// What a call to a GPU kernel must bring. Each throws Error (usage) with the rule and the values.

namespace annulus::cuda {

void check_problem(const Problem& problem);
void check_forward(const Problem&, DType accumulator, std::span<const Tile>, const Rows& q, const KeyValue&,
                   const Partial&);
void check_backward(const Problem&, DType accumulator, std::span<const Tile>, const Saved&, const KeyValue&,
                    const Gradients&);
void check_observe(const Problem&, DType accumulator, std::span<const Tile>, const Rows& q, const Rows& k,
                   const Rows& lse, const Observation&);

}  // namespace annulus::cuda

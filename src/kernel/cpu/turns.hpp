#pragma once
#include "kernel/cpu/strip.hpp"

// What backward and traces share.

namespace annulus::cpu {
namespace {

/// -lse log2(e); -inf for a row that saw nothing, whose probabilities are then 0.
ANNULUS_INLINE float minus_base_of_lse(float lse) { return lse == -infinity ? -infinity : -(lse * log2_e); }

/// Waits until all groups before this one, or before the part-th after it, are done with rows from `row` on.
void await_turn(const Turns& turns, Index head, Index row, Index part = 0) {
  for (Index before = 0; before < turns.turn + part; ++before)
    while (__atomic_load_n(turns.done_from + before * turns.heads + head, __ATOMIC_ACQUIRE) > row) turns.pause();
}

/// Rows from `row` on will not be touched again by this group, or the part-th after it.
void end_turn(const Turns& turns, Index head, Index row, Index part = 0) {
  __atomic_store_n(turns.done_from + (turns.turn + part) * turns.heads + head, row, __ATOMIC_RELEASE);
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/vec.hpp"

namespace annulus::cpu {
namespace {

/// Memory that will be wanted soon, brought into L2 two lines at a time beside arithmetic. A line from the next cache costs
/// 7 ns where it is waited for, and as much where many are asked for at once.
class Fetch {
 public:
  /// In place of what has not been brought yet.
  void aim(const float* from, Index words) { at_ = from, left_ = words; }

  ANNULUS_INLINE void step() {
    if (left_ <= 0) return;
    __builtin_prefetch(at_, 0, 2);
    __builtin_prefetch(at_ + line, 0, 2);
    at_ += 2 * line, left_ -= 2 * line;
  }

 private:
  static constexpr Index line = 16;  ///< words
  const float* at_ = nullptr;
  Index left_ = 0;
};

/// Queries of one head, and what stands beside them, a row at a time: the next ones to be packed.
struct RowsAhead {
  Source q{}, dout{};
  Index q_bytes = 0, dout_bytes = 0;
  Steps rows{0, 0};

  ANNULUS_INLINE void one() {
    if (rows.begin >= rows.end) return;
    for (Index at = 0; at < q_bytes; at += 64) __builtin_prefetch(q.data + rows.begin * q.pitch + at, 0, 2);
    for (Index at = 0; at < dout_bytes; at += 64) __builtin_prefetch(dout.data + rows.begin * dout.pitch + at, 0, 2);
    ++rows.begin;
  }
};

}  // namespace
}  // namespace annulus::cpu

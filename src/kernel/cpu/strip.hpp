#pragma once
#include "kernel/cpu/pack.hpp"

namespace annulus::cpu {
namespace {

/// One block of lanes against one chunk of steps. All steps are counted from the chunk's first.
struct Strip {
  Index begin, end;                      ///< steps that some lane sees
  Index full_begin, full_end;            ///< steps that every lane sees, all of them rows: no test is needed
  alignas(64) int lo[lanes], hi[lanes];  ///< a lane sees lo <= step <= hi

  bool whole(Index step) const { return step >= full_begin && step < full_end; }
  /// Does every lane see all steps of the words, or blocks, of `grain` steps that the strip touches?
  bool unhidden(Index grain) const {
    return begin == full_begin && end == full_end && begin % grain == 0 && end % grain == 0;
  }
};

/// Steps of the piece that lane rows [begin, end) see (empty when begin >= end).
ANNULUS_INLINE Steps steps_seen(const Piece& piece, Index begin, Index end) {
  const Index first = most(begin, piece.lane_begin), last = least(end, piece.lane_end) - 1;
  if (first > last) return {0, 0};
  return {most(piece.step_begin, first + piece.lo), least(piece.step_end, last + piece.hi + 1)};
}

/// The first step of the chunk that holds step `begin`. Chunks are cut alike for every group of rows, so that the bits do
/// not depend on how rows are grouped.
ANNULUS_INLINE Index chunk_of(const Piece& piece, Index begin, Index steps = chunk) {
  return begin - (begin - piece.step_begin) % steps;
}

/// Fills the strip of lane rows [row, row + count) for steps [from, from + size); false when nothing is seen. grain: the
/// strip will be walked in blocks of so many steps.
bool cut_strip(const Piece& piece, Index row, Index count, Index from, Index size, Strip& strip, Index grain = 1) {
  const Steps seen = steps_seen(piece, row, row + count);
  strip.begin = most(seen.begin - from, 0);
  strip.end = least(seen.end - from, size);
  if (strip.begin >= strip.end) return false;
  const bool every = count == lanes && piece.lane_begin <= row && row + count <= piece.lane_end;
  const Index full_begin = every ? most(piece.step_begin, row + count - 1 + piece.lo) - from : size;
  const Index full_end = every ? least(piece.step_end, row + piece.hi + 1) - from : 0;
  strip.full_begin = least(most(full_begin, strip.begin), strip.end);
  strip.full_end = least(most(full_end, strip.full_begin), strip.end);
  if (strip.unhidden(grain)) return true;
  for (Index lane = 0; lane < lanes; ++lane) {
    const Index a = row + lane;
    const bool inside = lane < count && a >= piece.lane_begin && a < piece.lane_end;
    const Index lo = most(piece.step_begin, a + piece.lo) - from,
                hi = least(piece.step_end, a + piece.hi + 1) - from - 1;
    strip.lo[lane] = inside ? static_cast<int>(least(most(lo, 0), size)) : static_cast<int>(size);
    strip.hi[lane] = inside ? static_cast<int>(least(most(hi, -1), size - 1)) : -1;
  }
  return true;
}

/// All bits where the lanes of vector n see the step.
ANNULUS_INLINE IntVec sees(const Strip& strip, Index step, int n) {
  const IntVec at = splat(static_cast<int>(step));
  return ~((at < load(strip.lo + n * width)) | (at > load(strip.hi + n * width)));
}

/// Channels summed from zero in one go. The rounding error of a sum of d products grows as d, with the blocks' sums added
/// up as sqrt(d) sqrt(channel_block): for scores of size 1 (scale 1/sqrt(d)) it then does not grow with d. The smaller block
/// costs AVX-512 nothing, and the smaller register tiles of the other tiers 2 % of their speed.
constexpr Index channel_block = width == 16 ? 32 : 64;

/// S^T = K Q^T of a unit of steps (or any product of rows of words with [word][lane]), into s[unit][lane].
template <class Words = Singles>
ANNULUS_INLINE void score_unit(Broadcast rows, const float* b, Index words, float* s) {
  for (Index c = 0; c < words; c += channel_block) {
    Vec sum[unit][vectors];
    clear(sum);
    const Broadcast from{rows.a + c, rows.row_pitch, 1};
    if (c + channel_block <= words)
      multiply<Words>(from, b + c * lanes, channel_block, sum);  // the usual depth, known to the compiler
    else multiply<Words>(from, b + c * lanes, words - c, sum);
#pragma GCC unroll 8
    for (int r = 0; r < unit; ++r)
#pragma GCC unroll 3
      for (int n = 0; n < vectors; ++n) {
        float* cell = s + r * lanes + n * width;
        store(cell, c == 0 ? sum[r][n] : load(cell) + sum[r][n]);
      }
  }
}

/// The same of a strip, into s[step][lane]. Computes whole units: up to unit - 1 rows beyond the strip's end are written, for
/// which rows.a and s must have room.
template <class Words = Singles>
[[gnu::noinline]] void score_strip(Broadcast rows, const float* b, Index words, const Strip& strip, float* s) {
  for (Index step = strip.begin; step < strip.end; step += unit)
    score_unit<Words>({rows.a + step * rows.row_pitch, rows.row_pitch, 1}, b, words, s + step * lanes);
}

}  // namespace
}  // namespace annulus::cpu

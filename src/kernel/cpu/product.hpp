#pragma once
#include "kernel/cpu/vec.hpp"

namespace annulus::cpu {
namespace {

/// Where a register tile finds its broadcast numbers: number (row, d) at a[row * row_pitch + d * depth_pitch].
struct Broadcast {
  const float* a;
  Index row_pitch, depth_pitch;
};

/// Operands are arrays of 32-bit words. Here each holds one f32.
struct Singles {
  static constexpr Index in_word = 1;
  ANNULUS_INLINE static Vec add(Vec sum, Vec a, Vec b) { return sum + a * b; }
};

/// Words that so many numbers fill.
template <class Words>
ANNULUS_INLINE Index words_of(Index numbers) {
  return (numbers + Words::in_word - 1) / Words::in_word;
}

/// c[r][n] += sum_d a[r][d] b[d][n]: the one matrix product, unit x lanes, that everything here is made of.
/// b: [depth][lanes], aligned.
template <class Words>
ANNULUS_INLINE void multiply(Broadcast from, const float* b, Index depth, Vec (&c)[unit][vectors]) {
  const float* row[unit];
#pragma GCC unroll 8
  for (int r = 0; r < unit; ++r) row[r] = from.a + r * from.row_pitch;
#pragma GCC unroll 4
  for (Index d = 0; d < depth; ++d) {
    Vec x[vectors];
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) x[n] = load(b + n * width);
    b += lanes;
#pragma GCC unroll 8
    for (int r = 0; r < unit; ++r) {
      const Vec a = splat(row[r][d * from.depth_pitch]);
#pragma GCC unroll 3
      for (int n = 0; n < vectors; ++n) c[r][n] = Words::add(c[r][n], a, x[n]);
    }
  }
}

ANNULUS_INLINE void clear(Vec (&c)[unit][vectors]) {
#pragma GCC unroll 8
  for (int r = 0; r < unit; ++r)
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) c[r][n] = Vec{};
}

/// Rows packed as panels: [panel][step][unit], panel p holding channels p * unit ...; pitch: floats from panel to
/// panel.
struct Panels {
  const float* data;
  Index pitch;
};

/// into[c][lane] += sum_{begin <= step < end} a[step][c] b[step][lane] for `channels` channels (rounded up to units).
/// Summed from zero and then added: over many chunks the rounding errors of long sums grow as the square root of the
/// number of chunks, not of steps.
template <class Words = Singles>
[[gnu::noinline]] void accumulate(Panels a, const float* b, Index begin, Index end, Index channels, float* into) {
  for (Index c = 0; c < channels; c += unit) {
    Vec sum[unit][vectors];
    clear(sum);
    multiply<Words>({a.data + c / unit * a.pitch + begin * unit, 1, unit}, b + begin * lanes, end - begin, sum);
#pragma GCC unroll 8
    for (int r = 0; r < unit; ++r)
#pragma GCC unroll 3
      for (int n = 0; n < vectors; ++n) {
        float* cell = into + (c + r) * lanes + n * width;
        store(cell, load(cell) + sum[r][n]);
      }
  }
}

}  // namespace
}  // namespace annulus::cpu

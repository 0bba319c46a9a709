#pragma once
#include "kernel/cuda/body.hpp"

// Matrix products of 64 x 64 blocks by 256 threads in plain arithmetic: thread (y, x) of 16 x 16 owns rows 4 y + [0, 4)
// and columns x + 16 [0, 4), so that the threads of a warp read different banks.

namespace annulus::cuda::simt {

constexpr int side = 64, threads = 256, depth = 32;

/// Some consecutive rows of one head; rows from `count` to 64 count as zeros.
struct Slab {
  const Rows& rows;
  Index first;
  int count;
  Index head;
};

template <class Acc>
struct Shared {
  union {
    struct {
      Acc a[side][depth + 1], b[side][depth + 1];
    } panels;
    Acc chunk[side][side + 1];
  };
  Acc weights[side][side + 1];
  Acc top[side], sum[side], keep[side];  // of rows
};

struct Place16 {
  int y, x;
};
ANNULUS_GPU Place16 place_of(int thread) { return {thread / 16 * 4, thread % 16}; }

template <class In, class Acc>
ANNULUS_GPU Acc element(const Slab& s, int row, Index channel) {
  if (row >= s.count || channel >= s.rows.channels) return Acc{0};
  return static_cast<Acc>(In::value(at<const typename In::Stored>(s.rows, s.first + row, s.head)[channel]));
}

/// sum[r][c] = a_r . b_c, over all channels. Begins and ends in step.
template <class In, class Acc, class Thread>
ANNULUS_GPU void products(Thread& t, Shared<Acc>& shared, const Slab& a, const Slab& b, Acc (&sum)[4][4]) {
  const Place16 at = place_of(t.index());
  for (auto& line : sum)
    for (Acc& x : line) x = 0;
  for (Index c0 = 0; c0 < a.rows.channels; c0 += depth) {
    for (int n = t.index(); n < side * depth; n += threads) {
      const int r = n / depth, c = n % depth;
      shared.panels.a[r][c] = element<In, Acc>(a, r, c0 + c);
      shared.panels.b[r][c] = element<In, Acc>(b, r, c0 + c);
    }
    t.sync();
    for (int c = 0; c < depth; ++c) {
      Acc left[4], right[4];
      for (int n = 0; n < 4; ++n) {
        left[n] = shared.panels.a[at.y + n][c];
        right[n] = shared.panels.b[at.x + 16 * n][c];
      }
      for (int y = 0; y < 4; ++y)
        for (int x = 0; x < 4; ++x) sum[y][x] += left[y] * right[x];
    }
    t.sync();
  }
}

/// sum[r][c] += weights_r . chunk_c over the rows of a block; where some are hidden, over those that r sees: they may hold
/// infinities, and 0 times that is not 0.
template <bool some_are_hidden, class Acc>
ANNULUS_GPU void add_chunk(const Shared<Acc>& shared, const Place16& place, const Block& block, Acc (&sum)[4][4]) {
  for (int j = 0; j < block.count; ++j) {
    Acc left[4], right[4];
    for (int n = 0; n < 4; ++n) {
      left[n] = shared.weights[place.y + n][j];
      right[n] = shared.chunk[j][place.x + 16 * n];
    }
    for (int y = 0; y < 4; ++y)
      if (!some_are_hidden || block.sees(place.y + y, j))
        for (int x = 0; x < 4; ++x) sum[y][x] += left[y] * right[x];
  }
}

/// into_r = keep_r into_r + sum_j weights[r][j] b_j for rows r < count and those rows j of the block that r sees; keep
/// absent: 1. Begins and ends in step.
template <class In, class Acc, class Thread>
ANNULUS_GPU void accumulate(Thread& t, Shared<Acc>& shared, const Block& block, const Slab& b, const Acc* keep,
                            const Rows& into, Index first, int count, Index head) {
  const Place16 place = place_of(t.index());
  for (Index c0 = 0; c0 < into.channels; c0 += side) {
    for (int n = t.index(); n < side * side; n += threads)
      shared.chunk[n / side][n % side] = element<In, Acc>(b, n / side, c0 + n % side);
    t.sync();
    Acc sum[4][4] = {};
    if (block.full(count)) {
      add_chunk<false>(shared, place, block, sum);
    } else {
      add_chunk<true>(shared, place, block, sum);
    }
    for (int y = 0; y < 4 && place.y + y < count; ++y)
      for (int x = 0; x < 4 && c0 + place.x + 16 * x < into.channels; ++x) {
        Acc& out = at<Acc>(into, first + place.y + y, head)[c0 + place.x + 16 * x];
        out = (keep == nullptr ? Acc{1} : keep[place.y + y]) * out + sum[y][x];
      }
    t.sync();
  }
}

}  // namespace annulus::cuda::simt

#pragma once
#include <cmath>
#include <limits>

#include "annulus/kernel/kernel.hpp"
#include "kernel/cuda/jobs.hpp"
#include "memory/elements.hpp"

// What the bodies of GPU kernels share. A body is a struct of arguments with
//
//   static constexpr int threads, shared_bytes;    of a block; block (x, y) works on job x of head y
//   template <class Thread> void operator()(Thread& t) const;
//
// and speaks to the hardware through t alone (thread.cuh on a GPU, tests/kernel/emulator.hpp on a CPU):
//
//   t.index()  t.job()  t.head()  t.shared()       who and where
//   t.sync()                                       all threads of the block
//   t.shuffle_xor(x, mask)                         the value of x in the lane whose number differs by mask
//   t.add(u64*, u64)                               atomic; only of integers, whose sums do not depend on the order
//   t.raise(u32*, u32)                             atomic maximum
//
// So the index arithmetic that runs on a GPU is the one that the tests run on a CPU.

#ifdef __CUDACC__
#define ANNULUS_GPU __device__ __forceinline__
#else
#define ANNULUS_GPU inline
#endif

namespace annulus::cuda {

template <class T>
ANNULUS_GPU T* at(const Rows& rows, Index token, Index head) {
  return reinterpret_cast<T*>(rows.data + token * rows.pitch) + head * rows.channels;
}

template <class T>
inline constexpr T nothing = -std::numeric_limits<T>::infinity();

/// The larger one; NaN if one is.
template <class T>
ANNULUS_GPU T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

/// Everything a body needs to find its rows and their tiles.
struct Work {
  const Job* jobs;
  const int* tiles_of;
  const Tile* tiles;
};

/// One block of the other side's rows, and which of them a row of ours sees: row r sees row c iff lo <= c - r <= hi.
struct Block {
  Index first;
  int count;
  int lo, hi;
  ANNULUS_GPU bool sees(int r, int c) const { return c < count && c - r >= lo && c - r <= hi; }
  /// Each of `rows` rows sees all of them.
  ANNULUS_GPU bool full(int rows) const { return lo <= 1 - rows && hi >= count - 1; }
};

/// The blocks of `width` rows that the rows of a job meet in one tile, in order.
class Blocks {
 public:
  ANNULUS_GPU Blocks(const Tile& tile, const Job& job, Side side, int width) : width_(width) {
    const Range& ours = side == Side::queries ? tile.q : tile.k;
    const Range& theirs = side == Side::queries ? tile.k : tile.q;
    at_ = theirs.begin;
    corner_ = job.begin - ours.begin;
    // a key sees queries by the band with its signs turned
    lo_ = side == Side::queries ? tile.band.lo : -tile.band.hi;
    hi_ = side == Side::queries ? tile.band.hi : -tile.band.lo;
    const Index last = corner_ + (job.end - job.begin) - 1, all = theirs.end - theirs.begin;
    next_ = corner_ + lo_ > 0 ? corner_ + lo_ : 0;
    end_ = last + hi_ + 1 < all ? last + hi_ + 1 : all;
  }
  ANNULUS_GPU bool more() const { return next_ < end_; }
  /// The place of the next block's first row, counted from the tile's corner.
  ANNULUS_GPU Index place() const { return next_; }
  ANNULUS_GPU Block next() {
    const Index from = next_;
    next_ += width_;
    return {at_ + from, static_cast<int>(next_ < end_ ? width_ : end_ - from), near(lo_ + corner_ - from),
            near(hi_ + corner_ - from)};
  }

 private:
  // Rows of two blocks are never further apart than this.
  ANNULUS_GPU static int near(Index distance) {
    constexpr Index most = 1 << 20;
    return static_cast<int>(distance < -most ? -most : distance > most ? most : distance);
  }
  int width_;
  Index at_, corner_, lo_, hi_, next_, end_;
};

}  // namespace annulus::cuda

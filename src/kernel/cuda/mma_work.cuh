#pragma once
#include "kernel/cuda/body.hpp"
#include "kernel/cuda/primitives.cuh"

// What the tensor-core kernels are told, and how a block of threads walks over the tiles of its job.

namespace annulus::cuda {

/// Rows [token][head][channels] to read, 16-bit elements or f32; a head begins head_bytes after the one before.
struct Source {
  const std::byte* data;
  Index pitch, head_bytes;
  int channels;
  bool aligned;  ///< every row of every head begins at a multiple of 16 bytes
};

/// f32 rows to accumulate into.
struct Target {
  std::byte* data;
  Index pitch, head_bytes;
  int channels;
};

__device__ __forceinline__ float* row_of(const Target& target, Index row, int head) {
  return reinterpret_cast<float*>(target.data + row * target.pitch + head * target.head_bytes);
}

__device__ __forceinline__ float number_of(const Source& source, Index row, int head) {
  return *reinterpret_cast<const float*>(source.data + row * source.pitch + head * source.head_bytes);
}

/// Up to `width` neighbouring rows of the other side: row r of the job sees column c of these iff lo <= c - r <= hi.
struct Columns {
  Index first;
  int count, lo, hi;
  int head;
  int there;  ///< of the tile; what lies beyond may hold anything
  /// Any of rows [row, row + rows) sees any column.
  __device__ __forceinline__ bool any(int row, int rows) const { return lo + row < count && hi + row + rows > 0; }
  /// Every one of `rows` rows sees every one of `width` columns: no test is needed.
  __device__ __forceinline__ bool full(int rows, int width) const {
    return count == width && lo <= 1 - rows && hi >= width - 1;
  }
};

/// Walks over the columns that the rows of a job see: head by head, tile by tile, block by block, always in this order.
/// Little of it stays in registers: a tile has less than 2^30 rows, and what is needed once per tile is read again.
template <Side side, int width>
class Walk {
 public:
  __device__ __forceinline__ Walk(const Work& work, const Job& job, int head, int head_end)
      : work_(work), job_(job), head_(head), head_end_(head_end), tile_(static_cast<int>(job.first)) {}

  /// False when there are no more.
  __device__ __forceinline__ bool next(Columns& columns) {
    while (next_ >= end_) {
      if (tile_ == job_.last) {
        if (++head_ >= head_end_) return false;
        tile_ = static_cast<int>(job_.first);
      }
      open(work_.tiles[work_.tiles_of[tile_++]]);
    }
    const int left = end_ - next_;
    columns = {first_ + next_, left < width ? left : width, lo_ - next_, hi_ - next_, head_, all_ - next_};
    next_ += width;
    return true;
  }

 private:
  // Counted from the tile's corner on the other side; lo_ and hi_ are bounds of the job's first row.
  __device__ __forceinline__ void open(const Tile& tile) {
    const Range ours = side == Side::queries ? tile.q : tile.k, theirs = side == Side::queries ? tile.k : tile.q;
    const int corner = static_cast<int>(job_.begin - ours.begin), last = static_cast<int>(job_.end - job_.begin) - 1;
    all_ = static_cast<int>(theirs.end - theirs.begin);
    // a key sees queries by the band with its signs turned
    lo_ = corner + bounded(side == Side::queries ? tile.band.lo : -tile.band.hi);
    hi_ = corner + bounded(side == Side::queries ? tile.band.hi : -tile.band.lo);
    first_ = theirs.begin;
    next_ = lo_ > 0 ? lo_ : 0;
    end_ = last + hi_ + 1 < all_ ? last + hi_ + 1 : all_;
  }
  __device__ __forceinline__ static int bounded(Index bound) {
    constexpr int most = 1 << 30;
    return bound < -most ? -most : bound > most ? most : static_cast<int>(bound);
  }

  const Work& work_;
  const Job& job_;
  Index first_ = 0;
  int head_, head_end_, tile_, next_ = 0, end_ = 0, lo_ = 0, hi_ = 0, all_ = 0;
};

}  // namespace annulus::cuda

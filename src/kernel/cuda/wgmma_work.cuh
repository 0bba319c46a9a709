#pragma once
#include "kernel/cuda/hopper.cuh"
#include "kernel/cuda/mma_forward.cuh"

// What the kernels for Hopper share. A block of threads is one warpgroup that copies, of which one thread (and for
// statistics one warp) does anything, and `consumers` warpgroups that compute, 64 own rows each. It stays for many items, an item
// being a job and a head, the longest first: block b of n takes items b, b + n, ...
//
//   copies      own rows | columns 0 | columns 1 |  wait till 0 is free | columns 2 | ...     up to two stages ahead
//   computes                 columns 0         | columns 1         | columns 2 ...
//
// "full" barriers say that something has come, "empty" ones that nobody reads it any more. All walk alike over the same
// items and columns, so both sides know the phases by counting.

namespace annulus::cuda {

constexpr int rows_per_warpgroup = 64;

/// All items of a launch: jobs x heads.
struct Items {
  int jobs, heads, blocks;
};

/// Bytes of `rows` rows of panels side by side.
constexpr int panels_bytes(int rows, int channels) { return rows * channels * 2; }

/// A place that is filled and emptied in turn; n counts how often.
template <int stages>
class Turn {
 public:
  __device__ __forceinline__ std::uint32_t stage() const { return stage_; }
  /// Parity to wait for: of the filling, and of the emptying before it.
  __device__ __forceinline__ std::uint32_t full() const { return round_; }
  __device__ __forceinline__ std::uint32_t empty() const { return round_ ^ 1; }
  __device__ __forceinline__ void next() {
    if (++stage_ == stages) {
      stage_ = 0;
      round_ ^= 1;
    }
  }

 private:
  std::uint32_t stage_ = 0, round_ = 0;
};

/// Starts copies of `rows` rows (the box of the map) of all channels of a head.
template <int rows, int channels>
__device__ __forceinline__ void copy_panels(std::uint32_t to, const TensorMap& map, int head, Index row,
                                            std::uint32_t barrier) {
#pragma unroll
  for (int c = 0; c < channels / panel_channels; ++c)
    copy_panel(to + static_cast<std::uint32_t>(c * rows * panel_row_bytes), map, c * panel_channels, head,
               static_cast<int>(row), barrier);
}

/// Zeroes rows [there, rows) of panels, which may hold anything: what is multiplied by 0 must not be NaN. All consumers.
template <int rows, int channels, int consumers>
__device__ __forceinline__ void clear_rows(std::uint32_t panels, int there, int consumer_thread) {
  struct alignas(16) Chunk {
    std::uint32_t words[4];
  };
  constexpr int chunks = panel_row_bytes / 16;
  for (int n = there * chunks + consumer_thread; n < rows * chunks; n += consumers * warpgroup_threads)
#pragma unroll
    for (int c = 0; c < channels / panel_channels; ++c)
      store_shared(panels + static_cast<std::uint32_t>(c * rows * panel_row_bytes + n * 16), Chunk{});
}
/// ... and makes that known to all consumers.
template <int consumers>
__device__ __forceinline__ void cleared() {
  fence_stores_for_products();
  barrier_wait(1, consumers * warpgroup_threads);
}

/// d[64, columns] = a b^T over all channels; a: panels of 64 rows, b: panels of the columns. Starts only.
template <DType type, int channels, int columns8>
__device__ __forceinline__ void start_scores(Fragments<1, columns8>& d, std::uint32_t a, std::uint32_t b) {
#pragma unroll
  for (int k = 0; k < channels / 16; ++k) {
    const auto panel = static_cast<std::uint32_t>(k / 4 * panel_row_bytes),
               step = static_cast<std::uint32_t>(k % 4 * 32);
    warpgroup_multiply<type>(d, along_rows(a + panel * rows_per_warpgroup + step),
                             along_rows(b + panel * (columns8 * 8) + step), k != 0);
  }
}

/// The left operand of accumulate: an accumulator rounded to 16 bits, two blocks of 8 columns to one of 16.
template <DType type, int columns8>
__device__ __forceinline__ void round_to(std::uint32_t (&left)[columns8 / 2][4], const Fragments<1, columns8>& w) {
#pragma unroll
  for (int k = 0; k < columns8 / 2; ++k)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      left[k][e] = pack<type>(w[0][2 * k + e / 2][e % 2 * 2], w[0][2 * k + e / 2][e % 2 * 2 + 1]);
}

/// d[64, channels] += w[64, columns] b[columns, channels]; b: panels. Starts only. Up to 128 channels in one product.
template <DType type, int steps, int channels8>
__device__ __forceinline__ void start_accumulate(Fragments<1, channels8>& d, const std::uint32_t (&left)[steps][4],
                                                 std::uint32_t b) {
  constexpr int most8 = channels8 < 16 ? channels8 : 16;
  constexpr std::uint32_t panel_bytes = steps * 16 * panel_row_bytes;
  static_assert(channels8 % most8 == 0);
#pragma unroll
  for (int k = 0; k < steps; ++k)
#pragma unroll
    for (int first8 = 0; first8 < channels8; first8 += most8)
      warpgroup_multiply<type>(reinterpret_cast<Fragments<1, most8>&>(d[0][first8]), left[k],
                               down_rows(b + static_cast<std::uint32_t>(k * 16 * panel_row_bytes) +
                                             static_cast<std::uint32_t>(first8 * 8 / panel_channels) * panel_bytes,
                                         panel_bytes));
}

}  // namespace annulus::cuda

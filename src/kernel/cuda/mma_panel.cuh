#pragma once
#include "kernel/cuda/mma_work.cuh"

// Rows of 16-bit elements in shared memory, and the two products that attention makes of them with mma.m16n8k16.
//
// A panel is [rows][channels], cut into chunks of 16 bytes. ldmatrix reads one chunk of eight neighbouring rows at a
// time; so that these lie in different banks, the chunks of a row change places within spans of 128 bytes (64 when a
// row has 192):
//   channels % 64 = 0:  chunk' = chunk xor (row mod 8)          channels = 96:  chunk' = chunk xor (row / 2 mod 4)

namespace annulus::cuda {

constexpr int warps = 4, block_threads = 32 * warps;

/// Blocks of rows and columns; of d[m][n] each thread holds rows 16 m + g, + 8 and columns 8 n + 2 t, + 1.
template <int rows16, int columns8>
using Fragments = float[rows16][columns8][4];

template <int channels>
struct Panel {
  static_assert(channels % 32 == 0);
  static constexpr int chunks = channels / 8, row_bytes = channels * 2, span = channels % 64 == 0 ? 8 : 4;

  __device__ __forceinline__ static std::uint32_t place(int row, int chunk) {
    const int turn = span == 8 ? row % 8 : row / 2 % 4;
    return static_cast<std::uint32_t>(row * row_bytes + (chunk ^ turn) * 16);
  }
  /// From the address of (row, chunk), chunk < 2, to that of (row + 16 r, chunk + c), c even; panels begin at multiples
  /// of 128 bytes, so that the exchanged bits of an address are its own.
  __device__ __forceinline__ static std::uint32_t moved(std::uint32_t address, int r, int c) {
    return (address ^ static_cast<std::uint32_t>(c % span * 16)) +
           static_cast<std::uint32_t>(16 * r * row_bytes + c / span * span * 16);
  }
};

/// Fills a panel of `rows` rows from rows [first, first + count) of one head; what is beyond count or the source's own
/// channels becomes zero. All threads of the block; asynchronous.
template <int channels, int rows>
__device__ __forceinline__ void load_panel(std::uint32_t panel, const Source& source, Index first, int count,
                                           int head) {
  using P = Panel<channels>;
  const std::byte* const data = source.data + first * source.pitch + head * source.head_bytes;
#pragma unroll 1
  for (int n = static_cast<int>(threadIdx.x); n < rows * P::chunks; n += block_threads) {
    const int row = n / P::chunks, chunk = n % P::chunks;
    int here = source.channels - chunk * 8;
    here = row >= count || here < 0 ? 0 : here > 8 ? 8 : here;
    const std::byte* const from = here == 0 ? data : data + row * source.pitch + chunk * 16;
    const std::uint32_t to = panel + P::place(row, chunk);
    if (source.aligned) {
      copy_async(to, from, 2 * here);
    } else {
      const auto* const elements = reinterpret_cast<const std::uint16_t*>(from);
#pragma unroll 1
      for (int e = 0; e < 8; ++e)
        store_shared(to + 2 * static_cast<std::uint32_t>(e), e < here ? elements[e] : std::uint16_t{0});
    }
  }
}

/// The fragments a of rows [row, row + 16) at channels [16 k, 16 k + 16).
template <int channels>
class LeftOperand {
 public:
  __device__ __forceinline__ LeftOperand(std::uint32_t panel, int row, int lane)
      : address_(panel + Panel<channels>::place(row + lane % 16, lane / 16)) {}
  __device__ __forceinline__ void load(std::uint32_t (&a)[4], int m, int k) const {
    load_matrices<false>(a, Panel<channels>::moved(address_, m, 2 * k));
  }

 private:
  std::uint32_t address_;
};

template <int rows16, int channels8>
__device__ __forceinline__ void clear(Fragments<rows16, channels8>& d) {
#pragma unroll
  for (int m = 0; m < rows16; ++m)
#pragma unroll
    for (int n = 0; n < channels8; ++n) d[m][n][0] = d[m][n][1] = d[m][n][2] = d[m][n][3] = 0;
}

/// d[rows, columns] = a b^T over all channels: get_left(a, m, k) gives a's fragments, b is a panel of the columns.
template <DType type, int channels, int rows16, int columns8, class GetLeft>
__device__ __forceinline__ void scores(Fragments<rows16, columns8>& d, const GetLeft& get_left, std::uint32_t b,
                                       int lane) {
  using P = Panel<channels>;
  const std::uint32_t right_at = b + P::place(lane % 8 + lane / 16 * 8, lane / 8 % 2);
  clear(d);
#pragma unroll
  for (int k = 0; k < channels / 16; ++k) {
    std::uint32_t left[rows16][4];
#pragma unroll
    for (int m = 0; m < rows16; ++m) get_left(left[m], m, k);
#pragma unroll
    for (int n = 0; n < columns8 / 2; ++n) {
      std::uint32_t right[4];
      load_matrices<false>(right, P::moved(right_at, n, 2 * k));
#pragma unroll
      for (int m = 0; m < rows16; ++m) {
        multiply<type>(d[m][2 * n], left[m], right[0], right[1]);
        multiply<type>(d[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

/// d[rows, channels] += w[rows, columns] b[columns, channels], w rounded to 16 bits. An accumulator's layout is that of
/// a left operand, two blocks of 8 columns to one of 16.
template <DType type, int channels, int rows16, int columns8>
__device__ __forceinline__ void accumulate(Fragments<rows16, channels / 8>& d, const Fragments<rows16, columns8>& w,
                                           std::uint32_t b, int lane) {
  using P = Panel<channels>;
  const std::uint32_t right_at = b + P::place(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < columns8 / 2; ++k) {
    std::uint32_t left[rows16][4];
#pragma unroll
    for (int m = 0; m < rows16; ++m)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        left[m][e] = pack<type>(w[m][2 * k + e / 2][e % 2 * 2], w[m][2 * k + e / 2][e % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < channels / 16; ++n) {
      std::uint32_t right[4];
      load_matrices<true>(right, P::moved(right_at, k, 2 * n));
#pragma unroll
      for (int m = 0; m < rows16; ++m) {
        multiply<type>(d[m][2 * n], left[m], right[0], right[1]);
        multiply<type>(d[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

/// Row 16 m + g + 8 half, counted from the warp's first, and column 8 n + 2 t + e % 2 of element e = 2 half + e % 2.
__device__ __forceinline__ int row_in_warp(int m, int half, int lane) { return 16 * m + lane / 4 + 8 * half; }
__device__ __forceinline__ int column_of(int n, int e, int lane) { return 8 * n + lane % 4 * 2 + e % 2; }

}  // namespace annulus::cuda

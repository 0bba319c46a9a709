#pragma once
#include "kernel/cpu/pack.hpp"

// Matrices of bf16 numbers as blocks of 32 x 32, each 2 KiB in one piece, in the two layouts that a product of tiles
// (tiles.hpp) takes. A word holds two numbers; D is what the product sums over:
//   left factor   [32 rows][16 words of D]          a word: neighbours in a row, (2 w, 2 w + 1)
//   right factor  [16 words of D][32 columns]       a word: two rows of one column
//   sum           [32 rows][32 columns] f32
// Which two of the 32 share a word is free, as long as both factors agree.

namespace annulus::cpu {
namespace {

constexpr Index side = 32;
constexpr Index factor_block = side * side / 2, sum_block = side * side;  ///< words

ANNULUS_INLINE Index blocks_in(Index numbers) { return (numbers + side - 1) / side; }

/// to[n][m] = from[m][n], 16 x 16 words.
ANNULUS_INLINE void transpose_words(const float* from, Index from_pitch, float* to, Index to_pitch) {
#if defined(__AVX512F__)
  __m512i x[16], y[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = _mm512_loadu_si512(from + i * from_pitch);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    y[2 * i] = _mm512_maskz_unpacklo_epi32(0xffff, x[2 * i], x[2 * i + 1]);
    y[2 * i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, x[2 * i], x[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    x[4 * i] = _mm512_maskz_unpacklo_epi64(0xff, y[4 * i], y[4 * i + 2]);
    x[4 * i + 1] = _mm512_maskz_unpackhi_epi64(0xff, y[4 * i], y[4 * i + 2]);
    x[4 * i + 2] = _mm512_maskz_unpacklo_epi64(0xff, y[4 * i + 1], y[4 * i + 3]);
    x[4 * i + 3] = _mm512_maskz_unpackhi_epi64(0xff, y[4 * i + 1], y[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm512_maskz_shuffle_i32x4(0xffff, x[i], x[4 + i], 0x88);
    y[4 + i] = _mm512_maskz_shuffle_i32x4(0xffff, x[i], x[4 + i], 0xdd);
    y[8 + i] = _mm512_maskz_shuffle_i32x4(0xffff, x[8 + i], x[12 + i], 0x88);
    y[12 + i] = _mm512_maskz_shuffle_i32x4(0xffff, x[8 + i], x[12 + i], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_si512(to + i * to_pitch, _mm512_maskz_shuffle_i32x4(0xffff, y[i], y[8 + i], 0x88));
    _mm512_storeu_si512(to + (8 + i) * to_pitch, _mm512_maskz_shuffle_i32x4(0xffff, y[i], y[8 + i], 0xdd));
  }
#else
  for (Index m = 0; m < 16; ++m)
    for (Index n = 0; n < 16; ++n) to[n * to_pitch + m] = from[m * from_pitch + n];
#endif
}

/// Two bf16 numbers in every word, each rounded to nearest.
ANNULUS_INLINE Vec rounded_pairs(Vec low, Vec high) {
  const UintVec half = UintVec{} + 0x8000U;
  const UintVec x = reinterpret_cast<UintVec>(low) + half, y = reinterpret_cast<UintVec>(high) + half;
  return reinterpret_cast<Vec>((x >> 16U) | (y & 0xffff0000U));
}

/// Rows [row, row + count) of bf16 numbers, at most 32 of them, as left factors [block of channels]; the rest is 0.
void pack_left(const Source& from, Index row, Index count, Index channels, float* to) {
  for (Index at = 0; at < channels; at += side, to += factor_block) {
    const Index bytes = least(side, channels - at) * 2;
    if (count < side || bytes < 64) zero(to, factor_block);
    for (Index r = 0; r < count; ++r) {
      const std::byte* source = from.data + (row + r) * from.pitch + at * 2;
      if (bytes == 64) __builtin_memcpy(to + r * 16, source, 64);
      else __builtin_memcpy(to + r * 16, source, static_cast<std::size_t>(bytes));
    }
  }
}

/// A left factor as the right factor of a product with the same sum over channels: [word of channels][row].
ANNULUS_INLINE void turn_to_right(const float* left, float* right) {
  transpose_words(left, 16, right, side);
  transpose_words(left + 16 * 16, 16, right + 16, side);
}

/// A left factor as the right factor of a sum over its rows; words hold rows (r, r + second) from row r = w * step:
/// [word of rows][channel].
ANNULUS_INLINE void pair_rows_of(const float* left, Index step, Index second, float* right) {
  for (Index w = 0; w < side / 2; ++w)
    for (Index at = 0; at < side / 2; at += width) {
      const UintVec x = reinterpret_cast<UintVec>(load(left + w * step * 16 + at)),
                    y = reinterpret_cast<UintVec>(load(left + (w * step + second) * 16 + at));
      const Vec even = reinterpret_cast<Vec>((x & 0xffffU) | (y << 16U)),
                odd = reinterpret_cast<Vec>((x >> 16U) | (y & 0xffff0000U));
      float* to = right + w * side + 2 * at;
#if defined(__AVX512F__)
      const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      const __m512i last = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      store(to, _mm512_permutex2var_ps(even, first, odd));
      store(to + width, _mm512_permutex2var_ps(even, last, odd));
#else
      for (Index i = 0; i < width; ++i) to[2 * i] = even[i], to[2 * i + 1] = odd[i];
#endif
    }
}

/// A left factor as the left factor of a sum over its rows: [channel][word of rows (2 w, 2 w + 1)].
ANNULUS_INLINE void turn_to_left(const float* left, float* turned) {
  alignas(64) float pairs[factor_block];
  pair_rows_of(left, 2, 1, pairs);
  transpose_words(pairs, side, turned, 16);
  transpose_words(pairs + 16, side, turned + 16 * 16, 16);
}

/// sum += left right over `depth` pairs of blocks; steps: words from block to block.
struct BlockProduct {
  const float* left;
  Index left_step;
  const float* right;
  Index right_step;
  Index depth;
  float* sum;
};

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/pack.hpp"

// Matrices of bf16 numbers as blocks of 32 x 32, each 2 KiB in one piece, in the two layouts that a product of tiles
// (tiles.hpp) takes. A word holds two numbers; D is what the product sums over:
//   left factor   [32 rows][16 words of D]          a word: two numbers of a row
//   right factor  [16 words of D][32 columns]       a word: two rows of one column
//   sum           [32 rows][32 columns] f32
// Which two of the 32 share a word is free, as long as both factors agree: channels and keys lie in words (w, w + 16), where no
// number has to cross a vector, queries in words (2 w, 2 w + 1), and so do channels of bf16 numbers, as they come.

namespace annulus::cpu {
namespace {

constexpr Index side = 32;
constexpr Index factor_block = side * side / 2, sum_block = side * side;  ///< words

/// A factor of a block: its terms one after another.
template <int terms>
constexpr Index factor = terms* factor_block;

ANNULUS_INLINE Index blocks_in(Index numbers) { return (numbers + side - 1) / side; }

/// Numbers as sums of `terms` bf16 numbers, each the nearest to what those before leave; the bits of the next term are the
/// upper halves of what is returned.
ANNULUS_INLINE UintVec next_term(Vec x) { return reinterpret_cast<UintVec>(x) + 0x8000U; }
ANNULUS_INLINE Vec rest_after(Vec x, UintVec term) { return x - reinterpret_cast<Vec>(term & 0xffff0000U); }

/// Words of two terms each.
ANNULUS_INLINE Vec term_pairs(UintVec low, UintVec high) {
  return reinterpret_cast<Vec>((low >> 16U) | (high & 0xffff0000U));
}

/// Numbers as a row of words: low[i] and high[i], term by term.
template <int terms>
ANNULUS_INLINE void split_words(Vec low, Vec high, float* to) {
#pragma GCC unroll 3
  for (int t = 0; t < terms; ++t) {
    const UintVec x = next_term(low), y = next_term(high);
    store(to + t * factor_block, term_pairs(x, y));
    if (t + 1 < terms) low = rest_after(low, x), high = rest_after(high, y);
  }
}

/// A block of numbers [32][32] as a left factor of a sum over its columns.
template <int terms>
ANNULUS_INLINE void split_left(const float* numbers, float* to) {
  for (Index r = 0; r < side; ++r)
    for (Index w = 0; w < side / 2; w += width)
      split_words<terms>(load(numbers + r * side + w), load(numbers + r * side + side / 2 + w), to + r * side / 2 + w);
}
/// The same as a right factor of a sum over its rows.
template <int terms>
ANNULUS_INLINE void split_right(const float* numbers, float* to) {
  for (Index w = 0; w < side / 2; ++w)
    for (Index c = 0; c < side; c += width)
      split_words<terms>(load(numbers + w * side + c), load(numbers + (w + side / 2) * side + c), to + w * side + c);
}

/// Columns of a block of numbers as rows.
ANNULUS_INLINE void turn_block(const float* numbers, float* turned) {
  for (Index m = 0; m < side; m += 16)
    for (Index n = 0; n < side; n += 16) turn<16, 16>(numbers + m * side + n, side, turned + n * side + m, side);
}
/// The same with rows 0, 2, 4 ... before rows 1, 3, 5 ...
ANNULUS_INLINE void turn_pairs(const float* numbers, float* turned) {
  for (Index m = 0; m < 2; ++m)
    for (Index n = 0; n < side; n += 16)
      turn<16, 16>(numbers + m * side + n, 2 * side, turned + n * side + m * 16, side);
}

/// Whether f32 numbers are sums of terms that tiles can take: none so large, infinite or no number that 0 times a term
/// might not be 0, and not all of them so small that terms are subnormal, which tiles take for 0; a small one beside
/// larger ones is harmless.
struct Sizes {
  IntVec largest{};
  ANNULUS_INLINE void include(Vec x) {
    const IntVec size = reinterpret_cast<IntVec>(x) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  bool split_well() const {
    const bool huge = any(largest > splat(__builtin_bit_cast(int, 0x1p60F))),
               fair = any(largest > splat(__builtin_bit_cast(int, 0x1p-60F)));
    return !huge && (fair || !any(largest != IntVec{}));
  }
};

/// Rows of one head in the caller's memory.
struct Matrix {
  Source from;
  DType type;
  Index channels;
};

/// Rows [rows.begin, rows.end), at most 32 of them, and 32 channels from `at` on as a block of numbers; what is missing is 0.
ANNULUS_INLINE void read_block(const Matrix& matrix, Steps rows, Index at, float* numbers, Sizes& sizes) {
  const Index here = least(side, matrix.channels - at), count = rows.end - rows.begin;
  const bool wide = matrix.type == DType::f32, in_place = wide && here == side;
  if (count < side || here < side) zero(numbers, sum_block);
  Sizes seen = sizes;
  for (Index r = 0; r < count; ++r) {
    const std::byte* source =
        matrix.from.data + (rows.begin + r) * matrix.from.pitch + at * bytes_of_number(matrix.type);
    float* to = numbers + r * side;
    if (!in_place) read_row(source, matrix.type, here, to);
    for (Index n = 0; wide && n < side; n += width) {
      const Vec x = load_loose(in_place ? reinterpret_cast<const float*>(source) + n : to + n);
      seen.include(x);
      store(to + n, x);
    }
  }
  sizes = seen;
}

/// bf16 numbers, which need not be split: the same as a left factor of a sum over channels.
ANNULUS_INLINE void copy_left(const Matrix& matrix, Steps rows, Index at, float* to) {
  const Index here = least(side, matrix.channels - at), count = rows.end - rows.begin;
  if (count < side || here < side) zero(to, factor_block);
  for (Index r = 0; r < count; ++r) {
    const std::byte* source = matrix.from.data + (rows.begin + r) * matrix.from.pitch + at * 2;
    if (here == side) __builtin_memcpy(to + r * 16, source, 64);
    else __builtin_memcpy(to + r * 16, source, static_cast<std::size_t>(here) * 2);
  }
}

/// A left factor as the right factor of a product with the same sum over channels: [word of channels][row].
ANNULUS_INLINE void turn_to_right(const float* left, float* right) {
  turn<16, 16>(left, 16, right, side);
  turn<16, 16>(left + 16 * 16, 16, right + 16, side);
}

/// A left factor of bf16 numbers as the right factor of a sum over its rows: [word of rows][channel]. Words hold rows
/// (r, r + second) from row r = w * step on.
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

/// The same as the left factor of a sum over its rows: [channel][word of rows (2 w, 2 w + 1)].
ANNULUS_INLINE void turn_to_left(const float* left, float* turned) {
  alignas(64) float pairs[factor_block];
  pair_rows_of(left, 2, 1, pairs);
  turn<16, 16>(pairs, side, turned, 16);
  turn<16, 16>(pairs + 16, side, turned + 16 * 16, 16);
}

}  // namespace
}  // namespace annulus::cpu

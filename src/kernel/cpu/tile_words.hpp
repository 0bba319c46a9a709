#pragma once
#include "kernel/cpu/pair_words.hpp"
#include "kernel/cpu/tiles.hpp"

// Operands of tile products: words of two bf16 numbers, and numbers of more bits as sums of bf16 terms,
//   x = x0 + x1 + x2,  |x1| <= 2^-8 |x|,  |x2| <= 2^-16 |x|:
// three terms hold an f32 exactly, two an f16. A product of two such numbers is a sum of products of terms.

namespace annulus::cpu {
namespace {

/// A tile of 16 x 16 words: of K it holds 16 keys x 32 channels, of V^T 16 channels x 32 keys.
constexpr Index tile_words = tile_rows * tile_depth;
constexpr Index word_channels = 2 * tile_depth;  ///< channels, or keys, in the depth of one tile product

/// Terms of a left factor (K, V) and of a right one (Q, P) whose product counts.
struct TermPair {
  int left, right;
};

/// The leading half of the result is the nearest bf16 number, away from zero at a tie.
ANNULUS_INLINE Vec rounded(Vec x) { return reinterpret_cast<Vec>(reinterpret_cast<UintVec>(x) + 0x8000U); }
/// The first term of x.
ANNULUS_INLINE Vec leading(Vec x) { return reinterpret_cast<Vec>(reinterpret_cast<UintVec>(rounded(x)) & 0xffff0000U); }
/// Leading halves of two vectors of numbers, low | high.
ANNULUS_INLINE Vec words(Vec low, Vec high) {
  return reinterpret_cast<Vec>((reinterpret_cast<UintVec>(low) >> 16U) |
                               (reinterpret_cast<UintVec>(high) & 0xffff0000U));
}
/// Terms of two vectors of numbers as words, term t at to + t * term.
template <int terms>
ANNULUS_INLINE void store_terms(Vec low, Vec high, float* to, Index term) {
#pragma GCC unroll 3
  for (int t = 0; t + 1 < terms; ++t) {
    const Vec a = leading(low), b = leading(high);
    store(to + t * term, words(a, b));
    low -= a;
    high -= b;
  }
  store(to + (terms - 1) * term, words(rounded(low), rounded(high)));
}

/// Numbers that split well: larger ones, infinities and NaN do not, because 0 times a term must be 0. Neither do small
/// ones as values, whose later terms would be subnormal, which tile products take for 0; as factors of a score they are
/// harmless.
constexpr float largest_term = 0x1p60F, smallest_value = 0x1p-60F;

/// The sign bits tell.
template <bool values>
ANNULUS_INLINE IntVec splits_badly(Vec x) {
  const IntVec size = reinterpret_cast<IntVec>(x) & 0x7fffffff;
  const IntVec bad = splat(__builtin_bit_cast(int, largest_term)) - size;
  if (!values) return bad;
  return bad | ((size - splat(__builtin_bit_cast(int, smallest_value))) & -size);  // -0 is not negative
}

/// Of words of two bf16 numbers each, the sign bits tell whether one is infinite or not a number.
ANNULUS_INLINE IntVec infinite_halves(Vec x) {
  const UintVec carried =
      (reinterpret_cast<UintVec>(x) & 0x7fff7fffU) + 0x00800080U;  // exponents of ones, into the signs
  return reinterpret_cast<IntVec>(carried | (carried << 16U));
}

/// One row of numbers as words of its terms, word w of a block of 32 channels holding channels w and w + 16. row: n floats
/// and zeros up to a multiple of 32. Returns what splits badly.
template <int terms>
ANNULUS_INLINE IntVec split_row(const float* row, Index n, float* to, Index block_pitch, Index term) {
  IntVec bad{};
  for (Index c = 0; c < n; c += word_channels, to += block_pitch)
    for (Index w = 0; w < tile_depth; w += width) {
      const Vec low = load_loose(row + c + w), high = load_loose(row + c + tile_depth + w);
      bad |= splits_badly<false>(low) | splits_badly<false>(high);
      store_terms<terms>(low, high, to + w, term);
    }
  return bad;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/blocks.hpp"
#include "kernel/cpu/tile_exp2.hpp"

// P = 2^(c S - base) and dS = P (dP - delta) of blocks of 32 queries and 32 keys (tile_backward.hpp), as terms in the
// factors of the products that take them.

namespace annulus::cpu {
namespace {

/// 2^t to 8e-6 relative, which is nothing beside the rounding to bf16. Out of range as exp2.
ANNULUS_INLINE Vec exp2_short(Vec t) {
#if defined(__AVX512DQ__)
  // (2^f - 1)/f for f in [0, 1) at four Chebyshev points, so that 2^0 is exact
  const Vec f = _mm512_maskz_reduce_ps(0xffff, t, 9);  // t - floor(t)
  Vec p = splat(1.2763113886e-02F) * f + splat(5.3441029271e-02F);
  p = p * f + splat(2.4064704812e-01F);
  p = p * f + splat(6.9313399262e-01F);
  return _mm512_maskz_scalef_ps(0xffff, p * f + splat(1.0F), t);
#else
  return exp2(t);
#endif
}

/// Which queries the keys of a block see, counted from the chunk's first: key `lane` sees lo <= query <= hi.
struct BlockBounds {
  alignas(64) int lo[side], hi[side];
};

/// P and dS of one block of queries and keys, from its S and dP: what is read and what is made.
struct BlockWeights {
  const float *s, *dp, *minus_base, *delta;
  const BlockBounds* bounds;
  float c;
  Index query;  ///< the first, counted from the chunk's
  float *p, *ds, *ds_rows;
};

/// The next term of P or dS in its upper half. Three terms hold an f32 number even where nothing is rounded but bits are cut
/// off, which is cheaper: the second one is below 2^-7, the third below 2^-15. The products that are left out
/// (tile_backward.hpp) are then below 2^-23 each, and of either sign, as the rounded terms of the other factor are.
template <int terms>
ANNULUS_INLINE UintVec term_of_weight(Vec x) {
  return terms == 3 ? reinterpret_cast<UintVec>(x) : next_term(x);
}

/// Two rows of them, made in pieces: what one leaves to the next stays in registers.
template <int terms, bool masked>
class WeightsOfWord {
 public:
  static constexpr int pieces = 3 + terms;

  template <int piece>
  ANNULUS_INLINE void make(const BlockWeights& block, Index word) {
    if constexpr (piece < 2) weigh<piece>(block, 2 * word + piece);
    else if constexpr (piece == 2) store_p(block, word);
    else {
      if constexpr (piece == 3) differentiate<0>(block, 2 * word), differentiate<1>(block, 2 * word + 1);
      store_ds<piece - 3>(block, word);
    }
  }

 private:
  static constexpr int groups = side / 2 / width;  ///< vectors in half a row
  static constexpr Index key_of(int g, int h) { return g * width + h * side / 2; }

  template <int r>
  ANNULUS_INLINE void weigh(const BlockWeights& block, Index row) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const Vec t = load(block.s + row * side + key_of(g, h)) * splat(block.c) + splat(block.minus_base[row]);
        p_[r][g][h] = where_seen(block, row, key_of(g, h), terms == 1 ? exp2_short(t) : tile_exp2<true>(t));
      }
  }
  template <int r>
  ANNULUS_INLINE void differentiate(const BlockWeights& block, Index row) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const Vec dp = load(block.dp + row * side + key_of(g, h));
        ds_[r][g][h] = where_seen(block, row, key_of(g, h), p_[r][g][h] * (dp - splat(block.delta[row])));
      }
  }
  ANNULUS_INLINE void store_p(const BlockWeights& block, Index word) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        Vec low = p_[0][g][h], high = p_[1][g][h];
#pragma GCC unroll 3
        for (int t = 0; t < terms; ++t) {
          const UintVec x = term_of_weight<terms>(low), y = term_of_weight<terms>(high);
          store(block.p + t * factor_block + word * side + key_of(g, h), term_pairs(x, y));
          if (t + 1 < terms) low = rest_after(low, x), high = rest_after(high, y);
        }
      }
  }
  template <int t>
  ANNULUS_INLINE void store_ds(const BlockWeights& block, Index word) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      UintVec x[2][2];
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          x[r][h] = term_of_weight<terms>(ds_[r][g][h]);
          if (t + 1 < terms) ds_[r][g][h] = rest_after(ds_[r][g][h], x[r][h]);
        }
      float *pairs = block.ds + t * factor_block + word * side + g * width,
            *rows = block.ds_rows + t * factor_block + word * side + g * width;
#pragma GCC unroll 2
      for (int n = 0; n < 2; ++n) {
        store(pairs + n * side / 2, term_pairs(x[0][n], x[1][n]));
        store(rows + n * side / 2, term_pairs(x[n][0], x[n][1]));
      }
    }
  }
  ANNULUS_INLINE static Vec where_seen(const BlockWeights& block, Index row, Index key, Vec x) {
    if (!masked) return x;
    const IntVec at = splat(static_cast<int>(block.query + row));
    return keep(~((at < load(block.bounds->lo + key)) | (at > load(block.bounds->hi + key))), x);
  }

  Vec p_[2][groups][2], ds_[2][groups][2];  ///< [row][vector][half]
};

/// Pieces [first, last) of the words from `word` on.
template <class Word, int first, int last>
ANNULUS_INLINE void make_pieces(Word& made, const BlockWeights& block, Index word) {
  if constexpr (first < last) {
    made.template make<first % Word::pieces>(block, word + first / Word::pieces);
    make_pieces<Word, first + 1, last>(made, block, word);
  }
}

template <int terms, bool masked>
[[gnu::noinline]] void make_words(const BlockWeights block, Index word) {  // by value: others stay in registers
#pragma GCC unroll 1
  for (; word < side / 2; ++word) {
    WeightsOfWord<terms, masked> made;
    make_pieces<WeightsOfWord<terms, masked>, 0, WeightsOfWord<terms, masked>::pieces>(made, block, word);
  }
}

/// The weights of one block, some words beside every pair of blocks that is multiplied.
template <int terms, int words_beside>
class WeightsBeside {
  using Word = WeightsOfWord<terms, false>;

 public:
  /// The next words, in a variable of its own, which registers hold.
  struct Words {
    BlockWeights block;
    Word made;
    template <int slot, int slots>
    ANNULUS_INLINE void step() {
      constexpr int all = Word::pieces * words_beside;
      make_pieces<Word, slot * all / slots, (slot + 1) * all / slots>(made, block, 0);
    }
  };

  /// A masked block is made at once: few are.
  void begin(const BlockWeights& block, bool masked) {
    block_ = block;
    word_ = masked ? words : 0;
    if (masked) make_words<terms, true>(block, 0);
  }
  ANNULUS_INLINE bool idle() const { return word_ == words; }
  ANNULUS_INLINE Words take() const {
    Words now{block_, {}};
    const Index row = 2 * word_, at = word_ * side;
    now.block.s += row * side, now.block.dp += row * side;
    now.block.minus_base += row, now.block.delta += row;
    now.block.p += at, now.block.ds += at, now.block.ds_rows += at;
    return now;
  }
  ANNULUS_INLINE void next() {
    if (word_ < words) word_ += words_beside;
  }
  ANNULUS_INLINE void finish() {
    if (word_ < words) make_words<terms, false>(block_, word_);
    word_ = words;
  }

 private:
  static constexpr Index words = side / 2;
  static_assert(words % words_beside == 0);
  BlockWeights block_{};
  Index word_ = words;
};

}  // namespace
}  // namespace annulus::cpu

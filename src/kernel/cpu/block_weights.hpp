#pragma once
#include "kernel/cpu/blocks.hpp"

// P = 2^(c S - base) and dS = P (dP - delta) of blocks of 32 queries and 32 keys (tile_backward.hpp), as terms in the
// factors of the products that take them.

namespace annulus::cpu {
namespace {

/// A factor of a block: its terms one after another.
template <int terms>
constexpr Index factor = terms* factor_block;

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

/// Two rows of them.
template <int terms, bool masked>
[[gnu::noinline]] void differentiate_word(const BlockWeights& block, Index word) {
  const Vec c = splat(block.c);
#pragma GCC unroll 4
  for (Index lane = 0; lane < side / 2; lane += width) {
    Vec p[2][2], ds[2][2];  // [row][half]
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const Index row = 2 * word + r, key = lane + h * side / 2, cell = row * side + key;
        const Vec t = load(block.s + cell) * c + splat(block.minus_base[row]);
        p[r][h] = terms == 1 ? exp2_short(t) : exp2(t);
        ds[r][h] = p[r][h] * (load(block.dp + cell) - splat(block.delta[row]));
        if (!masked) continue;
        const IntVec at = splat(static_cast<int>(block.query + row));
        const IntVec seen = ~((at < load(block.bounds->lo + key)) | (at > load(block.bounds->hi + key)));
        p[r][h] = keep(seen, p[r][h]);
        ds[r][h] = keep(seen, ds[r][h]);
      }
#pragma GCC unroll 3
    for (int term = 0; term < terms; ++term) {
      UintVec x[2][2], y[2][2];
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          x[r][h] = next_term(p[r][h]);
          y[r][h] = next_term(ds[r][h]);
          if (term + 1 == terms) continue;
          p[r][h] = rest_after(p[r][h], x[r][h]);
          ds[r][h] = rest_after(ds[r][h], y[r][h]);
        }
      const Index at = term * factor_block + lane;
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        store(block.p + at + word * side + h * side / 2, term_pairs(x[0][h], x[1][h]));
        store(block.ds + at + word * side + h * side / 2, term_pairs(y[0][h], y[1][h]));
      }
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) store(block.ds_rows + at + (2 * word + r) * side / 2, term_pairs(y[r][0], y[r][1]));
    }
  }
}

/// The weights of one block, word by word beside the products of others.
template <int terms>
class WeightsBeside {
 public:
  /// steps: of products, over which the words are spread.
  void begin(const BlockWeights& block, bool masked, Index steps) {
    block_ = block;
    differentiate_ = masked ? differentiate_word<terms, true> : differentiate_word<terms, false>;
    word_ = 0, due_ = 0, steps_ = most(steps, 1);
  }
  ANNULUS_INLINE void step() {
    if (word_ == words) return;
    for (due_ += words; due_ >= steps_ && word_ < words; due_ -= steps_) differentiate_(block_, word_++);
  }
  ANNULUS_INLINE void finish() {
    while (word_ < words) differentiate_(block_, word_++);
  }

 private:
  static constexpr Index words = side / 2;
  BlockWeights block_{};
  void (*differentiate_)(const BlockWeights&, Index) = nullptr;
  Index word_ = words, due_ = 0, steps_ = 1;
};

}  // namespace
}  // namespace annulus::cpu

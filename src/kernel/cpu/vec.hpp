#pragma once
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include "annulus/base/types.hpp"

// Vectors of floats in the width that the including file is compiled for. Everything in the tier headers has internal
// linkage, and none of them uses a function of the standard library that the compiler might emit: a copy compiled with
// AVX-512 must never be the one that the linker keeps for everybody.

namespace annulus::cpu {
namespace {

// The register tile: `unit` broadcast numbers times `vectors` vectors, all accumulators in registers. Of 16 registers
// 4 x 3 leaves 3 for the vectors and 1 for the broadcast; of 32 (AVX-512) 8 x 3 does the same. SSE has no fused
// multiply-add and needs a register for the product: 4 x 2.
// ANNULUS_VECTORS says otherwise: tile products take their lanes a tile at a time, and few rows fill one vector (narrow.hpp).
#if defined(__AVX512F__)
constexpr int width = 16, unit = 8;
#elif defined(__AVX2__) && defined(ANNULUS_VECTORS)
constexpr int width = 8, unit = 8;
#elif defined(__AVX2__)
constexpr int width = 8, unit = 4;
#else
constexpr int width = 4, unit = 4;
#endif
#if defined(ANNULUS_VECTORS)
constexpr int vectors = ANNULUS_VECTORS;
#else
constexpr int vectors = width == 4 ? 2 : 3;
#endif
constexpr int lanes = width * vectors;

typedef float Vec __attribute__((vector_size(width * 4)));
typedef int IntVec __attribute__((vector_size(width * 4)));
typedef unsigned UintVec __attribute__((vector_size(width * 4)));
typedef float LooseVec __attribute__((vector_size(width * 4), aligned(4), may_alias));

#define ANNULUS_INLINE [[gnu::always_inline]] inline

constexpr float infinity = __builtin_inff();
constexpr float log2_e = 1.4426950408889634F, ln_2 = 0.6931471805599453F;

ANNULUS_INLINE Vec splat(float x) { return x - Vec{}; }
ANNULUS_INLINE Vec load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
ANNULUS_INLINE void store(float* to, Vec x) { *reinterpret_cast<Vec*>(to) = x; }
ANNULUS_INLINE Vec load_loose(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
ANNULUS_INLINE void store_loose(float* to, Vec x) { *reinterpret_cast<LooseVec*>(to) = x; }
ANNULUS_INLINE IntVec load(const int* from) { return *reinterpret_cast<const IntVec*>(from); }
ANNULUS_INLINE IntVec splat(int x) { return x - IntVec{}; }

#if !defined(__AVX512F__)
/// min(x, bound); NaN stays NaN.
ANNULUS_INLINE Vec at_most(Vec x, Vec bound) {
#if defined(__AVX2__)
  return _mm256_min_ps(bound, x);
#else
  return bound < x ? bound : x;
#endif
}
#endif

/// max(x, y); y where either is NaN.
ANNULUS_INLINE Vec larger(Vec x, Vec y) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, x, y);
#elif defined(__AVX2__)
  return _mm256_max_ps(x, y);
#else
  return x > y ? x : y;
#endif
}

/// x where the mask (all bits or none) says so, else 0.
ANNULUS_INLINE Vec keep(IntVec mask, Vec x) { return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(x) & mask); }

/// x where the mask says so, else y.
ANNULUS_INLINE Vec choose(IntVec mask, Vec x, Vec y) {
  return reinterpret_cast<Vec>((reinterpret_cast<IntVec>(x) & mask) | (reinterpret_cast<IntVec>(y) & ~mask));
}

/// Is a sign bit set?
ANNULUS_INLINE bool any(IntVec mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#else
  int bits = 0;
  for (int i = 0; i < width; ++i) bits |= mask[i];
  return bits < 0;
#endif
}

// 2^f = 1 + f P(f) for f in [-0.5, 0.5], P interpolating (2^f - 1)/f at the six Chebyshev points (error 5e-9; 1 at 0
// exactly). With the pairs summed first the chain of dependent products is 16 cycles instead of 24, for one product more.
constexpr float exp2_terms[] = {6.9314718803e-1F, 2.4022650761e-1F, 5.5503571142e-2F,
                                9.6180825573e-3F, 1.3390863365e-3F, 1.5453162941e-4F};

/// 2^t to 1e-7 relative. t below -125 gives at most 2^-125, -inf gives 0; t above 127 gives at least 2^127 or infinity,
/// which callers take for an overflow; NaN stays NaN.
ANNULUS_INLINE Vec exp2(Vec t) {
#if defined(__AVX512F__)
  const Vec n = _mm512_maskz_roundscale_ps(0xffff, t, 8);  // to the nearest whole number
  const Vec f = t - n;
  Vec p = splat(exp2_terms[5]);
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) p = p * f + splat(exp2_terms[i]);
  return _mm512_maskz_scalef_ps(0xffff, p * f + splat(1.0F), n);  // 0 for n = -inf, though f is then not a number
#else
  const Vec bounded = at_most(t, splat(127.0F));
  const Vec shifted = bounded + splat(12582912.0F);  // 1.5 * 2^23: the sum's last bits count whole numbers
  const Vec f = bounded - (shifted - splat(12582912.0F)), square = f * f;
  const Vec low = f * splat(exp2_terms[1]) + splat(exp2_terms[0]),
            middle = f * splat(exp2_terms[3]) + splat(exp2_terms[2]),
            high = f * splat(exp2_terms[5]) + splat(exp2_terms[4]);
  const Vec p = ((high * square + middle) * square + low) * f + splat(1.0F);
  const UintVec power = reinterpret_cast<UintVec>(p) + (reinterpret_cast<UintVec>(shifted) << 23U);
  const IntVec vanishes = t < splat(-125.0F);
  return keep(~vanishes, reinterpret_cast<Vec>(power));
#endif
}

// ln m = 2 artanh(s) with s = (m - 1) / (m + 1): from the odd powers of s up to the ninth, 1e-9 of it for m around 1.
constexpr float artanh_terms[] = {1.0F, 1.0F / 3, 1.0F / 5, 1.0F / 7, 1.0F / 9};

/// Natural logarithm to 2e-7, of itself or of ln 2 where it is smaller; 0 at 1 exactly. x: normal and positive, or infinite
/// or not a number, which it stays.
ANNULUS_INLINE Vec log(Vec x) {
  const IntVec bits = reinterpret_cast<IntVec>(x), e = (bits - splat(0x3f3504f3)) >> 23;  // from the root of 1/2 on
  const Vec m = reinterpret_cast<Vec>(bits - (e << 23)), s = (m - splat(1.0F)) / (m + splat(1.0F)), z = s * s;
  Vec p = splat(artanh_terms[4]);
#pragma GCC unroll 4
  for (int i = 3; i >= 0; --i) p = p * z + splat(artanh_terms[i]);
  return choose(x - x == Vec{}, __builtin_convertvector(e, Vec) * splat(ln_2) + (s + s) * p, x);
}

ANNULUS_INLINE Index least(Index a, Index b) { return a < b ? a : b; }
ANNULUS_INLINE Index most(Index a, Index b) { return a > b ? a : b; }
ANNULUS_INLINE Index round_up(Index n, Index to) { return (n + to - 1) / to * to; }

}  // namespace
}  // namespace annulus::cpu

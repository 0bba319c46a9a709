#pragma once
#include "kernel/cpu/vec.hpp"

namespace annulus::cpu {
namespace {

// 2^t for use beside tile products, which leave one of the two units that multiply: 2^t = 2^n 2^(k/16) 2^r, 0 <= r < 1/16.
// Additions and the table of 2^(k/16) take the other unit. 2^r - 1 = r (a + b r + ...), a and b such that the error is least.
#if defined(__AVX512F__)
alignas(64) constexpr float sixteenths[16] = {1.0F,          1.0442737824F, 1.0905077327F, 1.1387886348F,
                                              1.1892071150F, 1.2418578121F, 1.2968395547F, 1.3542555469F,
                                              1.4142135624F, 1.4768261459F, 1.5422108254F, 1.6104903319F,
                                              1.6817928305F, 1.7562521604F, 1.8340080864F, 1.9152065614F};
#endif

/// 2^t to 5e-7 relative, or to 1e-7 where `exact`; 1 at 0. -inf gives 0, overflow infinity, NaN stays.
template <bool exact>
ANNULUS_INLINE Vec tile_exp2(Vec t) {
#if defined(__AVX512F__)
  // t rounded down to sixteenths: in `down` the last bits of the sum count them, r is what is left, and floor(t) is the power
  const Vec down = _mm512_maskz_add_round_ps(0xffff, t, splat(786432.0F), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const Vec r = _mm512_maskz_reduce_ps(0xffff, t, 0x49);
  Vec p;
  if constexpr (exact) p = (r * splat(0.05666991F) + splat(0.24018424F)) * r + splat(0.69314761F);
  else p = r * splat(0.2451015F) + splat(0.69305299F);
  const Vec power = _mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(down), load(sixteenths));
  const Vec part = power * r;
  return _mm512_maskz_scalef_ps(0xffff, part * p + power, t);
#else
  return exp2(t);
#endif
}

}  // namespace
}  // namespace annulus::cpu

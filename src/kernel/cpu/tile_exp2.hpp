#pragma once
#include "kernel/cpu/vec.hpp"

namespace annulus::cpu {
namespace {

// 2^t for use beside tile products, which leave one of the two units that multiply: 2^t = 2^n 2^(k/16) 2^r, |r| <= 1/32. Additions
// and the table of 2^(k/16) take other units. 2^r - 1 = r (a + b r + ...), a and b such that the error is least.
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
  const Vec count = splat(786432.0F);  // 1.5 * 2^19: the last bits of a sum count sixteenths
  Vec shifted, n, r, p;
  if constexpr (exact) {
    r = _mm512_maskz_reduce_ps(0xffff, t, 0x48);  // small however large t is: the cubic is then positive
    n = t - r;
    shifted = n + count;
    p = (r * splat(0.05550411F) + splat(0.2402265F)) * r + splat(0.69314718F);
  } else {
    shifted = t + count;
    n = shifted - count;
    r = t - n;
    p = r * splat(0.2402343F) + splat(0.69318783F);  // 1 + r p is positive everywhere
  }
  const Vec power = _mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(shifted), load(sixteenths));
  const Vec part = power * r;
  return _mm512_maskz_scalef_ps(0xffff, part * p + power,
                                n);  // by 2^floor(n); 0 for n = -inf, though r is no number then
#else
  return exp2(t);
#endif
}

}  // namespace
}  // namespace annulus::cpu

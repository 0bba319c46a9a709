#pragma once
#include "kernel/cpu/forward.hpp"

// Words that hold two bf16 numbers: neighbouring channels of q and k, neighbouring keys of v and P. Products of them are
// exact and sums f32, as with f32 operands; what is new is that P is rounded to bf16, to nearest, for O = P V. Its sum is
// taken before that, so that lse stays as exact as with f32 operands.

namespace annulus::cpu {
namespace {

ANNULUS_INLINE Index words_of(Index numbers) { return (numbers + 1) / 2; }

/// A row of bf16 numbers as they are, with 0 behind an odd last one.
[[maybe_unused]] void copy_row(const Source& from, Index row, Index numbers, float* to) {
  if (numbers % 2 != 0) to[numbers / 2] = 0;
  __builtin_memcpy(to, from.data + row * from.pitch, static_cast<std::size_t>(numbers) * 2);
}

/// Words of two rows, `pitch` bytes apart; 0 stands for the second when pitch is 0.
void pair_rows(const std::byte* first, Index pitch, Index numbers, float* to) {
  typedef std::uint16_t Halves __attribute__((vector_size(width * 2), aligned(2), may_alias));
  typedef std::uint16_t Half __attribute__((may_alias));
  const auto *x = reinterpret_cast<const Half*>(first), *y = reinterpret_cast<const Half*>(first + pitch);
  const unsigned keep_second = pitch == 0 ? 0 : ~0U;
  Index c = 0;
  for (; c + width <= numbers; c += width) {
    const UintVec low = __builtin_convertvector(*reinterpret_cast<const Halves*>(x + c), UintVec),
                  high = __builtin_convertvector(*reinterpret_cast<const Halves*>(y + c), UintVec);
    store_loose(to + c, reinterpret_cast<Vec>(low | ((high & keep_second) << 16U)));
  }
  for (; c < numbers; ++c) to[c] = __builtin_bit_cast(float, x[c] | ((y[c] & keep_second) << 16U));
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/forward.hpp"

// Words that hold two bf16 numbers: neighbouring channels of q and k, neighbouring keys of v and P. Products of them are
// exact and sums f32, as with f32 operands; what is new is that P is rounded to bf16, to nearest, for O = P V. Its sum is
// taken before that, so that lse stays as exact as with f32 operands.

namespace annulus::cpu {
namespace {

ANNULUS_INLINE Index words_of(Index numbers) { return (numbers + 1) / 2; }

/// A row of bf16 numbers as they are, with 0 behind an odd last one.
void copy_row(const Source& from, Index row, Index numbers, float* to) {
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

/// P of words [begin, end) in place: row w holds steps 2 w and 2 w + 1, 0 for those outside the strip. Halves are
/// rounded up.
[[gnu::noinline]] void round_to_pairs(float* p, const Strip& strip, Index begin, Index end) {
  if (strip.begin % 2 != 0) zero(p + (strip.begin - 1) * lanes, lanes);
  if (strip.end % 2 != 0) zero(p + strip.end * lanes, lanes);
  const UintVec half = UintVec{} + 0x8000U;
  for (Index word = begin; word < end; ++word)
    for (int n = 0; n < vectors; ++n) {
      const float* from = p + 2 * word * lanes + n * width;
      const UintVec low = reinterpret_cast<UintVec>(load(from)) + half,
                    high = reinterpret_cast<UintVec>(load(from + lanes)) + half;
      store(p + word * lanes + n * width, reinterpret_cast<Vec>((low >> 16U) | (high & 0xffff0000U)));
    }
}

/// Queries as [word][lane]
void pack_query_words(const ForwardItem& item, Index row, Index count, float* spare, float* q) {
  const Index words = words_of(item.shape.channels);
  if (count < lanes) zero(q, words * lanes);
  for (Index lane = 0; lane < count; ++lane) {
    copy_row(item.q, row + lane, item.shape.channels, spare);
    place_lane(spare, words, lane, q);
  }
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/forward.hpp"

// Forward on bf16 inputs with words that hold two bf16 numbers: neighbouring channels of q and k, neighbouring keys of v
// and P. Products are exact and sums f32, as before; what is new is that P is rounded to bf16, to nearest, for O = P V.
// Its sum is taken before that, so that lse stays as exact as with f32 operands.

namespace annulus::cpu {
namespace {

struct Pairs {
  static constexpr Index in_word = 2;
  ANNULUS_INLINE static Vec add(Vec sum, Vec a, Vec b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

ANNULUS_INLINE Index words_of(Index numbers) { return (numbers + 1) / 2; }

struct PairOperands {
  static void pack_queries(const ForwardItem& item, Index row, Index count, float* spare, float* q) {
    const Index words = words_of(item.shape.channels);
    if (count < lanes) zero(q, words * lanes);
    for (Index lane = 0; lane < count; ++lane) {
      copy_row(item.q, row + lane, item.shape.channels, spare);
      place_lane(spare, words, lane, q);
    }
  }

  static void pack_chunk(const ForwardItem& item, Index from, Index size, const ForwardRoom& room) {
    const Index pitch = padded(words_of(item.shape.channels)), values = item.shape.value_channels;
    for (Index row = 0; row < size; ++row) copy_row(item.k, from + row, item.shape.channels, room.k + row * pitch);
    zero(room.row, padded(values));
    for (Index row = 0; row < size; row += 2) {
      pair_rows(item.v.data + (from + row) * item.v.pitch, row + 1 < size ? item.v.pitch : 0, values, room.row);
      spread_row(room.row, row / 2, values, room.panels);
    }
  }

  ANNULUS_INLINE static void score(const ForwardRoom& room, const float* q, const Shape& shape, const Strip& strip) {
    const Index words = words_of(shape.channels);
    score_strip<Pairs>({room.k, padded(words), 1}, q, words, strip, room.p);
  }

  ANNULUS_INLINE static void add_values(const ForwardRoom& room, const Shape& shape, const Strip& strip, float* out) {
    const Index begin = strip.begin / 2, end = words_of(strip.end);
    round_to_pairs(room.p, strip, begin, end);
    accumulate<Pairs>({room.panels, panel_pitch}, room.p, begin, end, shape.value_channels, out);
  }

 private:
  /// A row of bf16 numbers as they are, with 0 behind an odd last one.
  static void copy_row(const Source& from, Index row, Index numbers, float* to) {
    if (numbers % 2 != 0) to[numbers / 2] = 0;
    __builtin_memcpy(to, from.data + row * from.pitch, static_cast<std::size_t>(numbers) * 2);
  }

  /// Words of two rows, `pitch` bytes apart; 0 stands for the second when pitch is 0.
  static void pair_rows(const std::byte* first, Index pitch, Index numbers, float* to) {
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
  [[gnu::noinline]] static void round_to_pairs(float* p, const Strip& strip, Index begin, Index end) {
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
};

/// Other types as in the tier without pairs.
void forward_with_pairs(const ForwardItem& item, float* scratch) {
  return item.shape.type == DType::bf16 ? forward<PairOperands>(item, scratch) : forward<SingleOperands>(item, scratch);
}

}  // namespace
}  // namespace annulus::cpu

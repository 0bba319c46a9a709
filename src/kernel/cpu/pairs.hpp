#pragma once
#include "kernel/cpu/pair_words.hpp"

// Forward on bf16 inputs with the vector instruction that multiplies pairs.

namespace annulus::cpu {
namespace {

struct Pairs {
  static constexpr Index in_word = 2;
  ANNULUS_INLINE static Vec add(Vec sum, Vec a, Vec b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

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

struct PairOperands {
  static void pack_queries(const ForwardItem& item, Index row, Index count, float* spare, float* q) {
    pack_query_words(item, row, count, spare, q);
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
};

/// Other types as in the tier without pairs.
void forward_with_pairs(const ForwardItem& item, float* scratch) {
  return item.shape.type == DType::bf16 ? forward<PairOperands>(item, scratch) : forward<SingleOperands>(item, scratch);
}

}  // namespace
}  // namespace annulus::cpu

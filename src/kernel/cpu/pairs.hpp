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

/// Two rows of numbers as a row of words, rounded to nearest, halves up.
ANNULUS_INLINE Vec pair_of(Vec first, Vec second) {
  const UintVec half = UintVec{} + 0x8000U;
  const UintVec low = reinterpret_cast<UintVec>(first) + half, high = reinterpret_cast<UintVec>(second) + half;
  return reinterpret_cast<Vec>((low >> 16U) | (high & 0xffff0000U));
}

/// P of words [begin, end) in place: row w holds steps 2 w and 2 w + 1, 0 for those outside the strip.
[[gnu::noinline]] void round_to_pairs(float* p, const Strip& strip, Index begin, Index end) {
  if (strip.begin % 2 != 0) zero(p + (strip.begin - 1) * lanes, lanes);
  if (strip.end % 2 != 0) zero(p + strip.end * lanes, lanes);
  for (Index word = begin; word < end; ++word)
    for (int n = 0; n < vectors; ++n) {
      const float* from = p + 2 * word * lanes + n * width;
      store(p + word * lanes + n * width, pair_of(load(from), load(from + lanes)));
    }
}

/// Rows [begin, begin + count) as [row][padded(words)].
void copy_rows(const Source& from, Index begin, Index count, Index numbers, float* to) {
  const Index pitch = padded(words_of(numbers));
  for (Index r = 0; r < count; ++r) copy_row(from, begin + r, numbers, to + r * pitch);
}

/// Rows [row, row + count) as [word][lane], lanes beyond count zeros. spare: room for a row
void pack_word_lanes(const Source& from, Index row, Index count, Index numbers, float* spare, float* to) {
  const Index words = words_of(numbers);
  const std::byte* const first = from.data + row * from.pitch;
  if (count < lanes) zero(to, words * lanes);
  Index lane = 0;
  if (numbers % 2 == 0 && from.pitch % 4 == 0 && reinterpret_cast<std::uintptr_t>(first) % 4 == 0)
    for (; lane + width <= count; lane += width)
      place_lanes(reinterpret_cast<const float*>(first + lane * from.pitch), from.pitch / 4, words, lane, to);
  for (; lane < count; ++lane) {
    copy_row(from, row + lane, numbers, spare);
    place_lane(spare, words, lane, to);
  }
}

struct PairOperands {
  static void pack_queries(const ForwardItem& item, Index row, Index count, float* spare, float* q) {
    pack_word_lanes(item.q, row, count, item.shape.channels, spare, q);
  }

  static void pack_chunk(const ForwardItem& item, Index from, Steps rows, const ForwardRoom& room) {
    const Index values = item.shape.value_channels, channels = item.shape.channels;
    copy_rows(item.k, from + rows.begin, rows.end - rows.begin, channels,
              room.k + rows.begin * padded(words_of(channels)));
    zero(room.row, padded(values));
    for (Index row = rows.begin; row < rows.end; row += 2) {
      pair_rows(item.v.data + (from + row) * item.v.pitch, row + 1 < rows.end ? item.v.pitch : 0, values, room.row);
      spread_row(room.row, row / 2, values, room.panels);
    }
    *room.values = {rows.end, ChunkValues::unknown};
  }

  ANNULUS_INLINE static void score(const ForwardRoom& room, const float* q, const Shape& shape, const Strip& strip) {
    const Index words = words_of(shape.channels);
    score_strip<Pairs>({room.k, padded(words), 1}, q, words, strip, room.p);
  }

  ANNULUS_INLINE static void add_values(const ForwardRoom& room, const Shape& shape, const Strip& strip, float* out) {
    const Index begin = strip.begin / 2, end = words_of(strip.end);
    if (hides_infinite<Pairs>(*room.values, room.panels, shape.value_channels, strip))
      return add_seen_values<Pairs>(room.panels, room.p, shape.value_channels, strip, out);
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

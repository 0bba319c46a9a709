#pragma once
#include "kernel/cpu/backward.hpp"
#include "kernel/cpu/pairs.hpp"

// Backward on bf16 inputs with the vector instruction that multiplies pairs. P and dS are rounded to bf16, to nearest. Words
// hold neighbouring channels of q, dout, k and v where channels are summed over, neighbouring queries where queries are, and
// neighbouring keys for dQ.

namespace annulus::cpu {
namespace {

struct PairGradients {
  using Words = Pairs;
  /// Its factors are half as large, its sums as large as those of single numbers.
  static Index blocks(const Shape& shape) { return most(2, blocks_of(shape) / 2); }

  static void pack_rows(const Source& from, DType, Index begin, Index count, Index channels, float* to) {
    copy_rows(from, begin, count, channels, to);
  }
  static void spread(const float* rows, Index count, Index channels, float* row, float* panels) {
    const Index pitch = padded(words_of(channels)) * 4;
    const auto* from = reinterpret_cast<const std::byte*>(rows);
    zero(row, padded(channels));
    for (Index r = 0; r < count; r += 2) {
      pair_rows(from + r * pitch, r + 1 < count ? pitch : 0, channels, row);
      spread_row(row, r / 2, channels, panels);
    }
  }
  static void pack_lanes(const Source& from, DType, Index begin, Index count, Index channels, float* row, float* to) {
    pack_word_lanes(from, begin, count, channels, row, to);
  }
  static void pack_key_rows(const Source& from, DType, Index begin, Index count, Index channels, float*, float* to) {
    const Index pitch = row_pitch(channels);
    zero(to, lanes / 2 * pitch);
    for (Index lane = 0; lane < count; lane += 2)
      pair_rows(from.data + (begin + lane) * from.pitch, lane + 1 < count ? from.pitch : 0, channels,
                to + lane / 2 * pitch);
  }
  ANNULUS_INLINE static void keep_weights(const Vec (&p)[2], const Vec (&ds)[2], Index step, int n,
                                          const BackwardRoom& room) {
    store(room.p + step / 2 * lanes + n * width, pair_of(p[0], p[1]));
    store(room.ds + step / 2 * lanes + n * width, pair_of(ds[0], ds[1]));
    for (int t = 0; t < 2; ++t) {
      const __m256bh lane_pairs = _mm512_cvtneps_pbh(ds[t]);
      __builtin_memcpy(room.ds_rows + (step + t) * (lanes / 2) + n * (width / 2), &lane_pairs, sizeof lane_pairs);
    }
  }
};

/// Other types as in the tier without pairs.
void gradients_with_pairs(const GradientItem& item, float* scratch) {
  return item.shape.type == DType::bf16 ? gradients<PairGradients>(item, scratch)
                                        : gradients<SingleGradients>(item, scratch);
}

}  // namespace
}  // namespace annulus::cpu

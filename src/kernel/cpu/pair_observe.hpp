#pragma once
#include "kernel/cpu/observe.hpp"
#include "kernel/cpu/pairs.hpp"

// Traces of bf16 inputs with the vector instruction that multiplies pairs: scores are as exact as with f32 operands.

namespace annulus::cpu {
namespace {

struct PairScores {
  struct Room {
    float *row, *k;
  };
  static Room room(const Shape& shape, Carver& carve) {
    const Index words = padded(words_of(shape.channels));
    return {carve.take(words), carve.take((chunk + unit) * words)};
  }
  static Index query_floats(const Shape& shape) { return padded(words_of(shape.channels)) * lanes; }
  static Index blocks(const Shape& shape) { return blocks_of(shape); }
  static void begin() {}
  static void end() {}
  static void pack_queries(const RowTraceItem& item, Index row, Index count, const Room& room, float* q) {
    pack_word_lanes(item.q, row, count, item.shape.channels, room.row, q);
  }
  static void pack_keys(const RowTraceItem& item, Index from, Index size, const Room& room) {
    copy_rows(item.k, from, size, item.shape.channels, room.k);
  }
  static void score(const TracePlace& at, const Room& room, const float* q, const Strip& strip, float* s) {
    const Index words = words_of(at.item.shape.channels);
    score_strip<Pairs>({room.k, padded(words), 1}, q, words, strip, s);
  }
};

/// Other types as in the tier without pairs.
void row_traces_with_pairs(const RowTraceItem& item, float* scratch) {
  return item.shape.type == DType::bf16 ? row_traces<PairScores>(item, scratch)
                                        : row_traces<SingleScores>(item, scratch);
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/observe.hpp"
#include "kernel/cpu/tile_unit.hpp"

// Traces with scores from tile products.

namespace annulus::cpu {
namespace {

template <class Way>
struct TileScores {
  struct Room {
    TileRoom tiles;  ///< what packing and scores need of it; k_term: of a chunk of traces
    float* k;        ///< and behind them 1 if some number splits badly
    SingleScores::Room plain;
    float* plain_q;
  };

  static Room room(const Shape& shape, Carver& carve) {
    const Index channels = tiled_channels(shape.channels);
    Room room{};
    room.tiles.depth = channels / word_channels;
    room.tiles.k_term = chunk * channels / 2;
    room.tiles.q_term = channels / 2 * lanes;
    room.tiles.row = carve.take(channels);
    room.tiles.turned = carve.take(Way::terms * tile_rows * channels);
    room.k = carve.take(Way::terms * room.tiles.k_term + 16);
    if (!Way::split) return room;
    room.plain = SingleScores::room(shape, carve);
    room.plain_q = carve.take(SingleScores::query_floats(shape));
    return room;
  }
  static Index query_floats(const Shape& shape) { return Way::terms * tiled_channels(shape.channels) / 2 * lanes + 16; }
  /// As many as profit from a packed chunk of keys while their queries stay near.
  static Index blocks(const Shape& shape) {
    return least(most_blocks, most(least_blocks, shape.group_bytes / (4 * query_floats(shape))));
  }
  static void begin() { begin_tiles(); }
  static void end() { end_tiles(); }

  static void pack_queries(const RowTraceItem& item, Index row, Index count, const Room& room, float* q) {
    TileOperands<Way>::pack_queries(item, row, count, room.tiles, q);
  }
  static void pack_keys(const RowTraceItem& item, Index from, Index size, const Room& room) {
    const PackItem keys{item.shape, item.k, {}, from, size, room.k};
    const IntVec bad =
        TileOperands<Way>::pack_keys(keys, {from, size, 0, round_up(size, block_steps)}, room.tiles, room.k);
    room.k[Way::terms * room.tiles.k_term] = any(bad) ? 1.0F : 0.0F;
  }
  /// Whole blocks of keys.
  static void score(const TracePlace& at, const Room& room, const float* q, const Strip& strip, float* s) {
    const TileRoom& tiles = room.tiles;
    if (Way::split && (room.k[Way::terms * tiles.k_term] != 0 || q[Way::terms * tiles.q_term] != 0)) {
      SingleScores::pack_queries(at.item, at.row, at.count, room.plain, room.plain_q);
      SingleScores::pack_keys(at.item, at.from, at.size, room.plain);
      return SingleScores::score(at, room.plain, room.plain_q, strip, s);
    }
    for (Index b = strip.begin / block_steps; b * block_steps < strip.end; ++b)
      run_scores<Way>(tiles, room.k + b * tiles.depth * tile_words, q, s + b * block_steps * lanes);
  }
};

template <class Way>
Index tile_trace_lanes(const Shape& shape) {
  return lanes * TileScores<Way>::blocks(shape);
}
template <class Way>
Index tile_trace_floats(const Shape& shape) {
  return trace_room<TileScores<Way>>(shape, nullptr).floats;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/backward.hpp"
#include "kernel/cpu/blocks.hpp"

// What gradients in blocks (tile_backward.hpp) keep in scratch for a group of keys and a chunk of queries, and how rows get
// there.

namespace annulus::cpu {
namespace {

constexpr Index query_chunk = 128, chunk_units = query_chunk / side;
constexpr Index span_blocks = 4;  ///< blocks of keys whose dS wait for one product with K: sums of dQ are loaded once

struct BlockRoom {
  Index channels, values;         ///< blocks of them
  float *k, *v;                   ///< [block of keys][block of channels], right factors
  float* k_pairs;                 ///< the same, of sums over keys
  float *dk, *dv;                 ///< [block of keys][block of channels], sums [channel][key]
  float* touched;                 ///< [key]
  float *q, *dout;                ///< [unit of 32 queries][block of channels], left factors
  float *q_turned, *dout_turned;  ///< [block of channels][unit], left factors of sums over queries
  float *minus_base, *delta;      ///< [query]
  float* dq;                      ///< [unit][block of channels], sums
  float *s, *dp;                  ///< two sums each, by turns
  float *p, *ds;                  ///< [buffer][unit], right factors, two buffers
  float* ds_rows;                 ///< [unit][span_blocks], left factors
  Index floats;
};

/// Blocks of keys in one item.
ANNULUS_INLINE Index key_blocks_of(const Shape& shape, int terms) {
  const Index x = blocks_in(shape.channels), y = blocks_in(shape.value_channels);
  const Index block = terms * factor_block;
  const Index each = (x * (2 * block + sum_block) + y * (block + sum_block)) * 4;
  // More than fits in L2 beside the queries: a third of it comes from L3, which costs less than packing queries more often.
  // Threes: a tier's lanes are whole blocks of both kinds.
  return least(48, most(3, shape.group_bytes * 7 / 5 / each / 3 * 3));
}

BlockRoom block_room(const Shape& shape, int terms, float* scratch) {
  Carver carve{scratch};
  BlockRoom room{};
  const Index x = blocks_in(shape.channels), y = blocks_in(shape.value_channels), keys = key_blocks_of(shape, terms);
  const Index block = terms * factor_block;
  room.channels = x, room.values = y;
  room.s = carve.take(2 * sum_block);
  room.dp = carve.take(2 * sum_block);
  room.p = carve.take(2 * chunk_units * block);
  room.ds = carve.take(2 * chunk_units * block);
  room.minus_base = carve.take(query_chunk);
  room.delta = carve.take(query_chunk);
  room.q = carve.take(chunk_units * x * block);
  room.dout = carve.take(chunk_units * y * block);
  room.q_turned = carve.take(chunk_units * x * block);
  room.dout_turned = carve.take(chunk_units * y * block);
  room.dq = carve.take(chunk_units * x * sum_block);
  room.ds_rows = carve.take(chunk_units * span_blocks * block);
  room.k = carve.take(keys * x * block);
  room.v = carve.take(keys * y * block);
  room.k_pairs = carve.take(keys * x * block);
  room.dk = carve.take(keys * x * sum_block);
  room.dv = carve.take(keys * y * sum_block);
  room.touched = carve.take(keys * side);
  room.floats = carve.used;
  return room;
}

/// Queries [from, from + size) of one head. Rows that saw nothing have no gradient, whatever stands in dout. Says whether
/// they split well.
template <int terms>
bool pack_query_blocks(const GradientItem& item, Index head, Index from, Index size, const BlockRoom& room) {
  const Index by = head * item.number_head_bytes, x = room.channels, y = room.values;
  const Source q{item.q.data + head * item.q_head_bytes, item.q.pitch},
      dout{item.dout.data + head * item.dout_head_bytes, item.dout.pitch};
  for (Index i = 0; i < query_chunk; ++i) {
    const float lse = i < size ? number_at(Source{item.lse.data + by, item.lse.pitch}, from + i) : -infinity;
    room.minus_base[i] = minus_base_of_lse(lse);
    room.delta[i] = lse == -infinity ? 0.0F : number_at(Source{item.delta.data + by, item.delta.pitch}, from + i);
  }
  Sizes q_sizes, dout_sizes;
  for (Index u = 0; u * side < size; ++u) {
    const Index row = from + u * side, count = least(side, size - u * side);
    float *q_unit = room.q + u * x * factor<terms>, *dout_unit = room.dout + u * y * factor<terms>;
    pack_left<terms>(q, item.shape.type, row, count, item.shape.channels, q_unit, q_sizes);
    pack_left<terms>(dout, item.shape.type, row, count, item.shape.value_channels, dout_unit, dout_sizes);
    for (Index r = 0; r < count; ++r)
      if (room.minus_base[u * side + r] == -infinity)
        for (Index n = 0; n < y * terms; ++n) zero(dout_unit + n * factor_block + r * 16, 16);
    const auto turn = [&](const float* blocks_of_unit, Index blocks, float* to) {
      for (Index n = 0; n < blocks; ++n)
        for (Index t = 0; t < terms; ++t)
          turn_to_left<terms == 1>(blocks_of_unit + (n * terms + t) * factor_block,
                                   to + ((n * chunk_units + u) * terms + t) * factor_block);
    };
    turn(q_unit, x, room.q_turned);
    turn(dout_unit, y, room.dout_turned);
  }
  return q_sizes.split_well() && dout_sizes.split_well();
}

/// Says whether they split well.
template <int terms>
bool load_key_blocks(const GradientItem& item, const BlockRoom& room) {
  const Shape& shape = item.shape;
  const Index x = room.channels * terms, y = room.values * terms, blocks = blocks_in(item.group.end - item.group.begin);
  Sizes k_sizes, v_sizes;
  for (Index b = 0; b < blocks; ++b) {
    const Index row = item.group.begin + b * side, count = least(side, item.group.end - row);
    float *k = room.q, *v = room.dout;  // where those of the queries will be
    pack_left<terms>(item.k, shape.type, row, count, shape.channels, k, k_sizes);
    pack_left<terms>(item.v, shape.type, row, count, shape.value_channels, v, v_sizes);
    for (Index n = 0; n < x; ++n) {
      turn_to_right(k + n * factor_block, room.k + (b * x + n) * factor_block);
      pair_rows_of<terms == 1>(k + n * factor_block, 1, side / 2, room.k_pairs + (b * x + n) * factor_block);
    }
    for (Index n = 0; n < y; ++n) turn_to_right(v + n * factor_block, room.v + (b * y + n) * factor_block);
  }
  zero(room.dk, blocks * room.channels * sum_block);
  zero(room.dv, blocks * room.values * sum_block);
  zero(room.touched, blocks * side);
  for (const Piece* piece = item.group.pieces; piece != item.group.pieces + item.group.piece_count; ++piece)
    for (Index key = most(item.group.begin, piece->lane_begin); key < least(item.group.end, piece->lane_end); ++key)
      room.touched[key - item.group.begin] = 1;
  return k_sizes.split_well() && v_sizes.split_well();
}

}  // namespace
}  // namespace annulus::cpu

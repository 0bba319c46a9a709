#pragma once
#include "kernel/cpu/backward.hpp"
#include "kernel/cpu/blocks.hpp"

// What gradients in blocks (tile_backward.hpp) keep in scratch for a group of keys and a chunk of queries, and how rows get
// there.

namespace annulus::cpu {
namespace {

/// Queries that meet all keys of a group one after another. More would not stay in L2 beside the keys' terms.
template <int terms>
constexpr Index query_chunk = terms == 1 ? 256 : 128;
template <int terms>
constexpr Index chunk_units = query_chunk<terms> / side;
constexpr Index most_queries = query_chunk<1>;
constexpr Index span_blocks = 4;  ///< blocks of keys whose dS wait for one product with K: sums of dQ are loaded once

struct BlockRoom {
  Index channels, values;         ///< blocks of them
  float *k, *v;                   ///< [block of keys, key_floats apart][block of channels], right factors
  float *dv, *dk;                 ///< the same, sums [channel][key], dk behind dv
  float* k_pairs;                 ///< as k, of sums over keys
  Index key_floats;               ///< all of a block of keys in one piece
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
  // More than fits in L2 beside the queries: what comes from L3 costs less than packing queries more often, the more so where
  // it is fetched beside the products of several terms. Twice as many would save a little more time, but dQ is summed in
  // tiles over all of them, and its error grows by a twentieth. Threes: a tier's lanes are whole blocks of both kinds.
  const Index bytes = terms > 1 ? shape.group_bytes * 8 / 5 : shape.group_bytes * 7 / 5;
  return least(48, most(3, bytes / each / 3 * 3));
}

BlockRoom block_room(const Shape& shape, int terms, float* scratch) {
  Carver carve{scratch};
  BlockRoom room{};
  const Index x = blocks_in(shape.channels), y = blocks_in(shape.value_channels), keys = key_blocks_of(shape, terms);
  const Index block = terms * factor_block, units = terms == 1 ? chunk_units<1> : chunk_units<2>;
  room.channels = x, room.values = y;
  room.s = carve.take(2 * sum_block);
  room.dp = carve.take(2 * sum_block);
  room.p = carve.take(2 * units * block);
  room.ds = carve.take(2 * units * block);
  room.minus_base = carve.take(units * side);
  room.delta = carve.take(units * side);
  room.q = carve.take(units * x * block);
  room.dout = carve.take(units * y * block);
  room.q_turned = carve.take(units * x * block);
  room.dout_turned = carve.take(units * y * block);
  room.dq = carve.take(units * x * sum_block);
  room.ds_rows = carve.take(units * span_blocks * block);
  room.key_floats = 2 * x * block + y * block + (x + y) * sum_block;
  room.k = carve.take(keys * room.key_floats);
  room.v = room.k + x * block;
  room.dv = room.v + y * block;
  room.dk = room.dv + y * sum_block;
  room.k_pairs = room.dk + x * sum_block;
  room.touched = carve.take(keys * side);
  room.floats = carve.used;
  return room;
}

/// At most 32 rows of queries as left factors: of sums over channels, and, a chunk's units apart, of sums over rows.
/// minus_base, where given: -inf for rows that are to be 0.
template <int terms>
void pack_unit(const Matrix& matrix, Steps rows, const float* minus_base, float* left, float* turned, Sizes& sizes) {
  const auto clear = [&](float* row_of_block, Index words) {
    for (Index r = 0; minus_base != nullptr && r < rows.end - rows.begin; ++r)
      if (minus_base[r] == -infinity) zero(row_of_block + r * words, words);
  };
  for (Index at = 0; at < matrix.channels; at += side, left += factor<terms>, turned += chunk_units<terms> * factor<terms>) {
    if constexpr (terms == 1) {
      copy_left(matrix, rows, at, left);
      clear(left, side / 2);
      turn_to_left(left, turned);
    } else {
      alignas(64) float numbers[sum_block], columns[sum_block];
      read_block(matrix, rows, at, numbers, sizes);
      clear(numbers, side);
      split_left<terms>(numbers, left);
      turn_pairs(numbers, columns);
      split_left<terms>(columns, turned);
    }
  }
}

/// At most 32 rows of keys as right factors: of sums over channels, and, where wanted, of sums over rows.
template <int terms>
void pack_keys(const Matrix& matrix, Steps rows, float* right, float* pairs, Sizes& sizes) {
  for (Index at = 0; at < matrix.channels; at += side, right += factor<terms>) {
    alignas(64) float numbers[sum_block], columns[sum_block];
    if constexpr (terms == 1) {
      copy_left(matrix, rows, at, numbers);
      turn_to_right(numbers, right);
      if (pairs != nullptr) pair_rows_of(numbers, 1, side / 2, pairs);
    } else {
      read_block(matrix, rows, at, numbers, sizes);
      turn_block(numbers, columns);
      split_right<terms>(columns, right);
      if (pairs != nullptr) split_right<terms>(numbers, pairs);
    }
    if (pairs != nullptr) pairs += factor<terms>;
  }
}

/// Queries [from, from + size) of one head. Rows that saw nothing have no gradient, whatever stands in dout. Says whether
/// they split well.
template <int terms>
bool pack_query_blocks(const GradientItem& item, Index head, Index from, Index size, const BlockRoom& room) {
  const Shape& shape = item.shape;
  const Index by = head * item.number_head_bytes, x = room.channels, y = room.values;
  const Matrix q{{item.q.data + head * item.q_head_bytes, item.q.pitch}, shape.type, shape.channels},
      dout{{item.dout.data + head * item.dout_head_bytes, item.dout.pitch}, shape.type, shape.value_channels};
  for (Index i = 0; i < query_chunk<terms>; ++i) {
    const float lse = i < size ? number_at(Source{item.lse.data + by, item.lse.pitch}, from + i) : -infinity;
    room.minus_base[i] = minus_base_of_lse(lse);
    room.delta[i] = lse == -infinity ? 0.0F : number_at(Source{item.delta.data + by, item.delta.pitch}, from + i);
  }
  Sizes q_sizes, dout_sizes;
  for (Index u = 0; u * side < size; ++u) {
    const Steps rows{from + u * side, from + least(u * side + side, size)};
    pack_unit<terms>(q, rows, nullptr, room.q + u * x * factor<terms>, room.q_turned + u * factor<terms>, q_sizes);
    pack_unit<terms>(dout, rows, room.minus_base + u * side, room.dout + u * y * factor<terms>,
                     room.dout_turned + u * factor<terms>, dout_sizes);
  }
  return q_sizes.split_well() && dout_sizes.split_well();
}

void clear_key_gradients(const BlockRoom& room, Index blocks) {
  for (Index b = 0; b < blocks; ++b) zero(room.dv + b * room.key_floats, (room.values + room.channels) * sum_block);
}

/// Says whether they split well.
template <int terms>
bool load_key_blocks(const GradientItem& item, const BlockRoom& room) {
  const Shape& shape = item.shape;
  const Group& group = item.group;
  const Index blocks = blocks_in(group.end - group.begin);
  const Matrix k{item.k, shape.type, shape.channels}, v{item.v, shape.type, shape.value_channels};
  Sizes k_sizes, v_sizes;
  for (Index b = 0; b < blocks; ++b) {
    const Steps rows{group.begin + b * side, least(group.begin + b * side + side, group.end)};
    const Index at = b * room.key_floats;
    pack_keys<terms>(k, rows, room.k + at, room.k_pairs + at, k_sizes);
    pack_keys<terms>(v, rows, room.v + at, nullptr, v_sizes);
  }
  clear_key_gradients(room, blocks);
  zero(room.touched, blocks * side);
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece)
    for (Index key = most(group.begin, piece->lane_begin); key < least(group.end, piece->lane_end); ++key)
      room.touched[key - group.begin] = 1;
  return k_sizes.split_well() && v_sizes.split_well();
}

}  // namespace
}  // namespace annulus::cpu

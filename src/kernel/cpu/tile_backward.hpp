#pragma once
#include "kernel/cpu/backward.hpp"
#include "kernel/cpu/blocks.hpp"
#include "kernel/cpu/tiles.hpp"

// Backward on bf16 inputs in products of blocks of 32 queries, 32 keys and 32 channels (blocks.hpp). P and dS are rounded
// to bf16, to nearest; all sums are f32.
//   S = Q K^T,  dP = dO V^T          left Q, dO [queries][channels]     right K, V [channels][keys]
//   P = 2^(c S - base),  dS = P (dP - delta)                            softmax_scale joins at the end
//   dV^T += dO^T P,  dK^T += Q^T dS  left dO^T, Q^T [channels][queries] right P, dS [queries][keys]
//   dQ += dS K                       left dS [queries][keys]            right K [keys][channels]
// dS is a right factor first and a left one then, and no tile is ever transposed: two rows make a right factor, the two
// halves of a row, keys j and j + 16, the left one.

namespace annulus::cpu {
namespace {

constexpr Index query_chunk = 128, chunk_units = query_chunk / side;
constexpr Index span_blocks = 8;  ///< blocks of keys whose dS wait for one product with K: sums of dQ are loaded once

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
  float *s, *dp;                  ///< a sum each
  float *p, *ds;                  ///< [unit], right factors
  float* ds_rows;                 ///< [unit][span_blocks], left factors
  Index floats;
};

/// Blocks of keys in one item.
ANNULUS_INLINE Index key_blocks_of(const Shape& shape) {
  const Index x = blocks_in(shape.channels), y = blocks_in(shape.value_channels);
  const Index each = (x * (2 * factor_block + sum_block) + y * (factor_block + sum_block)) * 4;
  return least(48, most(1, shape.group_bytes / each));
}

BlockRoom block_room(const Shape& shape, float* scratch) {
  Carver carve{scratch};
  BlockRoom room{};
  const Index x = blocks_in(shape.channels), y = blocks_in(shape.value_channels), keys = key_blocks_of(shape);
  room.channels = x, room.values = y;
  room.s = carve.take(sum_block);
  room.dp = carve.take(sum_block);
  room.p = carve.take(chunk_units * factor_block);
  room.ds = carve.take(chunk_units * factor_block);
  room.minus_base = carve.take(query_chunk);
  room.delta = carve.take(query_chunk);
  room.q = carve.take(chunk_units * x * factor_block);
  room.dout = carve.take(chunk_units * y * factor_block);
  room.q_turned = carve.take(chunk_units * x * factor_block);
  room.dout_turned = carve.take(chunk_units * y * factor_block);
  room.dq = carve.take(chunk_units * x * sum_block);
  room.ds_rows = carve.take(chunk_units * span_blocks * factor_block);
  room.k = carve.take(keys * x * factor_block);
  room.v = carve.take(keys * y * factor_block);
  room.k_pairs = carve.take(keys * x * factor_block);
  room.dk = carve.take(keys * x * sum_block);
  room.dv = carve.take(keys * y * sum_block);
  room.touched = carve.take(keys * side);
  room.floats = carve.used;
  return room;
}

template <bool fresh>
ANNULUS_INLINE void multiply_blocks(const BlockProduct& p) {
  for (Index column = 0; column < side; column += 2 * width) {
    float *upper = p.sum + column, *lower = upper + 16 * side;
    if constexpr (fresh) {
      tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    } else {
      tile_load<0>(upper, side), tile_load<1>(upper + width, side);
      tile_load<2>(lower, side), tile_load<3>(lower + width, side);
    }
    const float *left = p.left, *right = p.right + column;
    for (Index n = 0; n < p.depth; ++n, left += p.left_step, right += p.right_step) {
      tile_load<4, tile_depth>(left, tile_depth);
      tile_load<6>(right, side);
      tile_multiply<0, 4, 6>();
      tile_load<7>(right + width, side);
      tile_multiply<1, 4, 7>();
      tile_load<5, tile_depth>(left + 16 * tile_depth, tile_depth);
      tile_multiply<2, 5, 6>();
      tile_multiply<3, 5, 7>();
    }
    tile_store<0>(upper, side), tile_store<1>(upper + width, side);
    tile_store<2>(lower, side), tile_store<3>(lower + width, side);
  }
}

/// 2^t to 8e-6 relative, which is nothing beside the rounding to bf16. Out of range as exp2.
ANNULUS_INLINE Vec exp2_short(Vec t) {
#if defined(__AVX512DQ__)
  // (2^f - 1)/f for f in [0, 1) at four Chebyshev points, so that 2^0 is exact
  const Vec f = _mm512_maskz_reduce_ps(0xffff, t, 9);  // t - floor(t)
  Vec p = splat(1.2763113886e-02F) * f + splat(5.3441029271e-02F);
  p = p * f + splat(2.4064704812e-01F);
  p = p * f + splat(6.9313399262e-01F);
  return _mm512_maskz_scalef_ps(0xffff, p * f + splat(1.0F), t);
#else
  return exp2(t);
#endif
}

/// Which queries the keys of a block see, counted from the chunk's first: key `lane` sees lo <= query <= hi.
struct BlockBounds {
  alignas(64) int lo[side], hi[side];
};

void bound_block(const Piece& piece, Index key, Index count, Index from, BlockBounds& bounds) {
  for (Index lane = 0; lane < side; ++lane) {
    const Index a = key + lane;
    const bool inside = lane < count && a >= piece.lane_begin && a < piece.lane_end;
    const Index lo = most(piece.step_begin, a + piece.lo) - from, hi = least(piece.step_end - 1, a + piece.hi) - from;
    bounds.lo[lane] = inside ? static_cast<int>(least(most(lo, 0), query_chunk)) : static_cast<int>(query_chunk);
    bounds.hi[lane] = inside ? static_cast<int>(least(most(hi, -1), query_chunk - 1)) : -1;
  }
}

/// P and dS of one block from its S and dP. query: its first, counted from the chunk's.
template <bool masked>
[[gnu::noinline]] void differentiate_block(const BlockRoom& room, const Shape& shape, const BlockBounds& bounds,
                                           Index query, float* p_to, float* ds_to, float* ds_rows) {
  const Vec c = splat(shape.log2_scale);
  const float *minus_base = room.minus_base + query, *delta = room.delta + query;
#pragma GCC unroll 1
  for (Index word = 0; word < side / 2; ++word)
#pragma GCC unroll 4
    for (Index lane = 0; lane < side / 2; lane += width) {
      Vec p[2][2], ds[2][2];  // [row][half]
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const Index row = 2 * word + r, key = lane + h * side / 2, cell = row * side + key;
          p[r][h] = exp2_short(load(room.s + cell) * c + splat(minus_base[row]));
          ds[r][h] = p[r][h] * (load(room.dp + cell) - splat(delta[row]));
          if (!masked) continue;
          const IntVec at = splat(static_cast<int>(query + row));
          const IntVec seen = ~((at < load(bounds.lo + key)) | (at > load(bounds.hi + key)));
          p[r][h] = keep(seen, p[r][h]);
          ds[r][h] = keep(seen, ds[r][h]);
        }
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        store(p_to + word * side + h * side / 2 + lane, rounded_pairs(p[0][h], p[1][h]));
        store(ds_to + word * side + h * side / 2 + lane, rounded_pairs(ds[0][h], ds[1][h]));
      }
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) store(ds_rows + (2 * word + r) * side / 2 + lane, rounded_pairs(ds[r][0], ds[r][1]));
    }
}

/// Queries [from, from + size) of one head. Rows that saw nothing have no gradient, whatever stands in dout.
void pack_query_blocks(const GradientItem& item, Index head, Index from, Index size, const BlockRoom& room) {
  const Index by = head * item.number_head_bytes;
  const Source q{item.q.data + head * item.q_head_bytes, item.q.pitch},
      dout{item.dout.data + head * item.dout_head_bytes, item.dout.pitch};
  for (Index i = 0; i < query_chunk; ++i) {
    const float lse = i < size ? number_at(Source{item.lse.data + by, item.lse.pitch}, from + i) : -infinity;
    room.minus_base[i] = minus_base_of_lse(lse);
    room.delta[i] = lse == -infinity ? 0.0F : number_at(Source{item.delta.data + by, item.delta.pitch}, from + i);
  }
  for (Index u = 0; u * side < size; ++u) {
    const Index row = from + u * side, count = least(side, size - u * side);
    float *q_unit = room.q + u * room.channels * factor_block, *dout_unit = room.dout + u * room.values * factor_block;
    pack_left(q, row, count, item.shape.channels, q_unit);
    pack_left(dout, row, count, item.shape.value_channels, dout_unit);
    for (Index r = 0; r < count; ++r)
      if (room.minus_base[u * side + r] == -infinity)
        for (Index n = 0; n < room.values; ++n) zero(dout_unit + n * factor_block + r * 16, 16);
    for (Index n = 0; n < room.channels; ++n)
      turn_to_left(q_unit + n * factor_block, room.q_turned + (n * chunk_units + u) * factor_block);
    for (Index n = 0; n < room.values; ++n)
      turn_to_left(dout_unit + n * factor_block, room.dout_turned + (n * chunk_units + u) * factor_block);
  }
}

void load_key_blocks(const GradientItem& item, Index blocks, const BlockRoom& room) {
  const Shape& shape = item.shape;
  const Index x = room.channels, y = room.values;
  float* left = room.q;  // as large as a block of rows of either side
  for (Index b = 0; b < blocks; ++b) {
    const Index row = item.group.begin + b * side, count = least(side, item.group.end - row);
    pack_left(item.k, row, count, shape.channels, left);
    for (Index n = 0; n < x; ++n) {
      turn_to_right(left + n * factor_block, room.k + (b * x + n) * factor_block);
      pair_rows_of(left + n * factor_block, 1, side / 2, room.k_pairs + (b * x + n) * factor_block);
    }
  }
  for (Index b = 0; b < blocks; ++b) {
    const Index row = item.group.begin + b * side, count = least(side, item.group.end - row);
    pack_left(item.v, row, count, shape.value_channels, room.dout);
    for (Index n = 0; n < y; ++n) turn_to_right(room.dout + n * factor_block, room.v + (b * y + n) * factor_block);
  }
  zero(room.dk, blocks * x * sum_block);
  zero(room.dv, blocks * y * sum_block);
  zero(room.touched, blocks * side);
  for (const Piece* piece = item.group.pieces; piece != item.group.pieces + item.group.piece_count; ++piece)
    for (Index key = most(item.group.begin, piece->lane_begin); key < least(item.group.end, piece->lane_end); ++key)
      room.touched[key - item.group.begin] = 1;
}

/// One block of keys against the chunk's units [first, last): their P and dS, and what the keys get from them.
void differentiate_keys(const Shape& shape, const BlockRoom& room, const BlockBounds& bounds, Steps units, Steps full,
                        Index b, float* ds_rows) {
  const Index x = room.channels, y = room.values;
  for (Index u = units.begin; u < units.end; ++u) {
    multiply_blocks<true>(
        {room.q + u * x * factor_block, factor_block, room.k + b * x * factor_block, factor_block, x, room.s});
    multiply_blocks<true>(
        {room.dout + u * y * factor_block, factor_block, room.v + b * y * factor_block, factor_block, y, room.dp});
    float *p = room.p + u * factor_block, *ds = room.ds + u * factor_block,
          *rows = ds_rows + u * span_blocks * factor_block;
    if (u >= full.begin && u < full.end) differentiate_block<false>(room, shape, bounds, u * side, p, ds, rows);
    else differentiate_block<true>(room, shape, bounds, u * side, p, ds, rows);
  }
  const Index depth = units.end - units.begin, at = units.begin * factor_block;
  for (Index n = 0; n < y; ++n)
    multiply_blocks<false>({room.dout_turned + n * chunk_units * factor_block + at, factor_block, room.p + at,
                            factor_block, depth, room.dv + (b * y + n) * sum_block});
  for (Index n = 0; n < x; ++n)
    multiply_blocks<false>({room.q_turned + n * chunk_units * factor_block + at, factor_block, room.ds + at,
                            factor_block, depth, room.dk + (b * x + n) * sum_block});
}

void differentiate_chunk(const GradientItem& item, const Piece& piece, Index head, Steps rows, Index begin,
                         const BlockRoom& room) {
  const Shape& shape = item.shape;
  const Group& group = item.group;
  const Source q{item.q.data + head * item.q_head_bytes, item.q.pitch},
      dout{item.dout.data + head * item.dout_head_bytes, item.dout.pitch},
      dq{item.dq.data + head * item.dq_head_bytes, item.dq.pitch};
  const Steps next{most(begin, rows.begin - query_chunk), rows.begin};
  const Index x = room.channels, from = rows.begin, size = rows.end - from;
  const Index blocks = blocks_in(group.end - group.begin);
  pack_query_blocks(item, head, from, size, room);
  zero(room.dq, chunk_units * x * sum_block);
  for (Index span = 0; span < blocks; span += span_blocks) {
    Steps seen_by[chunk_units] = {};  // per unit: blocks of the span that see some of it
    for (Index b = span; b < least(span + span_blocks, blocks); ++b) {
      prefetch_rows(q, shape.type, next, shape.channels, b, blocks);
      prefetch_rows(dout, shape.type, next, shape.value_channels, b, blocks);
      prefetch_rows(dq, DType::f32, rows, shape.channels, b, blocks);
      const Index key = group.begin + b * side, count = least(side, group.end - key);
      const Steps seen = steps_seen(piece, key, key + count);
      const Index first = most(seen.begin - from, 0), last = least(seen.end - from, size);
      if (first >= last) continue;
      const bool every = count == side && piece.lane_begin <= key && key + side <= piece.lane_end;
      // a unit is full when its first query is seen by the last key and its last query by the first key
      Steps full{blocks_in(most(key + side - 1 + piece.lo - from, 0)), (key + piece.hi + 1 - from) / side};
      if (!every || key + piece.hi + 1 < from) full = {0, 0};
      BlockBounds bounds;
      const Steps units{first / side, blocks_in(last)};
      if (full.begin > units.begin || full.end < units.end) bound_block(piece, key, count, from, bounds);
      differentiate_keys(shape, room, bounds, units, full, b, room.ds_rows + (b - span) * factor_block);
      for (Index u = units.begin; u < units.end; ++u) {
        if (seen_by[u].end == 0) seen_by[u].begin = b;
        seen_by[u].end = b + 1;
      }
    }
    for (Index u = 0; u * side < size; ++u) {
      const Steps& by = seen_by[u];
      for (Index n = 0; n < x && by.begin < by.end; ++n)
        multiply_blocks<false>({room.ds_rows + (u * span_blocks + by.begin - span) * factor_block, factor_block,
                                room.k_pairs + (by.begin * x + n) * factor_block, x * factor_block, by.end - by.begin,
                                room.dq + (u * x + n) * sum_block});
    }
  }
}

/// to[c] += by from[c] for the channels of a block.
ANNULUS_INLINE void add_scaled(const float* from, Index channels, float by, float* to) {
  Index c = 0;
  for (; c + width <= channels; c += width) store_loose(to + c, load_loose(to + c) + splat(by) * load(from + c));
  for (; c < channels; ++c) to[c] += by * from[c];
}

void add_dq(const GradientItem& item, const BlockRoom& room, Index head, Steps rows, Index begin) {
  for (Index row = begin; row < rows.end; ++row) {
    auto* dq = reinterpret_cast<float*>(item.dq.data + head * item.dq_head_bytes + row * item.dq.pitch);
    const Index at = row - rows.begin, channels = item.shape.channels;
    const float* from = room.dq + at / side * room.channels * sum_block + at % side * side;
    for (Index c = 0; c < channels; c += side, from += sum_block)
      add_scaled(from, least(side, channels - c), item.shape.scale, dq + c);
  }
}

/// into[key][c] += by from[c][key] for the keys that a tile holds.
void add_block_lanes(const GradientItem& item, const BlockRoom& room, const float* from, Index channels, float by,
                     const Target& into) {
  for (Index row = item.group.begin; row < item.group.end; row += side)
    for (Index c = 0; c < channels; c += side, from += sum_block) {
      alignas(64) float turned[sum_block];
      for (Index m = 0; m < side; m += 16)
        for (Index n = 0; n < side; n += 16) transpose_words(from + m * side + n, side, turned + n * side + m, side);
      for (Index key = row; key < least(row + side, item.group.end); ++key)
        if (room.touched[key - item.group.begin] != 0)
          add_scaled(turned + (key - row) * side, least(side, channels - c), by,
                     reinterpret_cast<float*>(into.data + key * into.pitch) + c);
    }
}

void gradients_in_blocks(const GradientItem& item, float* scratch) {
  const BlockRoom room = block_room(item.shape, scratch);
  load_key_blocks(item, blocks_in(item.group.end - item.group.begin), room);
  for_each_chunk<query_chunk>(
      item,
      [&](const Piece& piece, Index head, Steps rows, Index begin) {
        differentiate_chunk(item, piece, head, rows, begin, room);
      },
      [&](Index head, Steps rows, Index begin) { add_dq(item, room, head, rows, begin); });
  add_block_lanes(item, room, room.dk, item.shape.channels, item.shape.scale, item.dk);
  add_block_lanes(item, room, room.dv, item.shape.value_channels, 1, item.dv);
}

void gradients_with_tiles(const GradientItem& item, float* scratch) {
  if (item.shape.type != DType::bf16) return gradients(item, scratch);
  begin_tiles();
  gradients_in_blocks(item, scratch);
  end_tiles();
}

template <const Tier& base>
Index group_lanes_with_blocks(const Shape& shape, Pass pass) {
  const bool here = pass == Pass::backward && shape.type == DType::bf16;
  return here ? side * key_blocks_of(shape) : base.group_lanes(shape, pass);
}

template <const Tier& base>
Index scratch_floats_with_blocks(const Shape& shape, Pass pass) {
  const bool here = pass == Pass::backward && shape.type == DType::bf16;
  return here ? block_room(shape, nullptr).floats : base.scratch_floats(shape, pass);
}

/// The tier with its gradients in tiles.
template <const Tier& base>
constexpr Tier with_tile_gradients() {
  Tier tier = base;
  tier.group_lanes = group_lanes_with_blocks<base>;
  tier.scratch_floats = scratch_floats_with_blocks<base>;
  tier.gradients = gradients_with_tiles;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

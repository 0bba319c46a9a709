#pragma once
#include "kernel/cpu/strip.hpp"

// Backward in two passes, so that every gradient row has one owner and is summed in one order. With P = 2^(c S - base),
// c = scale log2(e), base = lse log2(e):
//   query_gradients, lanes are queries:  S^T = K Q^T,  dP^T = V dO^T,  dS^T = scale P^T (dP^T - delta),  dQ^T += K^T
//   dS^T key_gradients, lanes are keys:       S = Q K^T,    dP = dO V^T,    dS = scale P (dP - delta),
//                                        dV^T += dO^T P,  dK^T += Q^T dS
// Seven products instead of five: the price for recomputing S and dP is 40 % more arithmetic, and no merging of sums.

namespace annulus::cpu {
namespace {

/// Two sets of rows that meet in one product: q or k with `channels`, dout or v with `value_channels`.
struct BackwardBlock {
  float *x, *y;               ///< lanes' own rows: q and dout, or k and v
  float *dx, *dy;             ///< their gradients: dq (dy unused), or dk and dv
  float *minus_base, *delta;  ///< query lanes only
  float* touched;
};

struct BackwardRoom {
  BackwardBlock first;
  Index block_floats;
  float *row, *x, *y, *x_panels, *y_panels, *p, *ds, *minus_base, *delta;  ///< of a chunk of steps
  Index floats;
};

/// Blocks of lanes in one item: half as many as forward, since each has twice the arrays.
ANNULUS_INLINE Index backward_blocks_of(const Shape& shape) { return most(1, blocks_of(shape) / 2); }

BackwardRoom backward_room(const Shape& shape, float* scratch) {
  Carver carve{scratch};
  BackwardRoom room{};
  const Index x = padded(shape.channels), y = padded(shape.value_channels);
  room.row = carve.take(most(x, y));
  room.x = carve.take((chunk + unit) * x);
  room.y = carve.take((chunk + unit) * y);
  room.x_panels = carve.take(panel_floats(shape.channels));
  room.y_panels = carve.take(panel_floats(shape.value_channels));
  room.p = carve.take((chunk + unit) * lanes);
  room.ds = carve.take((chunk + unit) * lanes);
  room.minus_base = carve.take(chunk + unit);
  room.delta = carve.take(chunk + unit);
  const Index begin = carve.used;
  room.first.x = carve.take(x * lanes);
  room.first.y = carve.take(y * lanes);
  room.first.dx = carve.take(x * lanes);
  room.first.dy = carve.take(y * lanes);
  room.first.minus_base = carve.take(lanes);
  room.first.delta = carve.take(lanes);
  room.first.touched = carve.take(lanes);
  room.block_floats = carve.used - begin;
  room.floats = begin + room.block_floats * backward_blocks_of(shape);
  return room;
}

ANNULUS_INLINE BackwardBlock block_at(const BackwardRoom& room, Index b) {
  BackwardBlock block = room.first;
  const Index by = b * room.block_floats;
  block.x += by, block.y += by, block.dx += by, block.dy += by;
  block.minus_base += by, block.delta += by, block.touched += by;
  return block;
}

/// into[row][c] += from[c][lane] for the rows that a tile holds.
void add_lanes(const float* from, const float* touched, Index row, Index count, Index channels, const Target& into) {
  for (Index lane = 0; lane < count; ++lane) {
    if (touched[lane] == 0) continue;
    auto* to = reinterpret_cast<float*>(into.data + (row + lane) * into.pitch);
    for (Index c = 0; c < channels; ++c) to[c] += from[c * lanes + lane];
  }
}

void touch(const Piece& piece, const Group& group, const BackwardRoom& room) {
  for (Index row = most(group.begin, piece.lane_begin); row < least(group.end, piece.lane_end); ++row)
    block_at(room, (row - group.begin) / lanes).touched[(row - group.begin) % lanes] = 1;
}

/// -lse log2(e); -inf for a row that saw nothing, whose probabilities are then 0.
ANNULUS_INLINE float minus_base_of_lse(float lse) { return lse == -infinity ? -infinity : -(lse * log2_e); }

/// P and dS in place of S and dP over steps [begin, end). steps_are_queries: base and delta belong to the step, not to
/// the lane.
template <bool steps_are_queries, bool masked>
ANNULUS_INLINE void differentiate_rows(const BackwardRoom& room, const BackwardBlock& block, const Shape& shape,
                                       const Strip& strip, Index begin, Index end) {
  const Vec c = splat(shape.log2_scale), by = splat(shape.scale);
#pragma GCC unroll 1
  for (Index step = begin; step < end; ++step)
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) {
      const Index cell = step * lanes + n * width;
      const Vec minus_base = steps_are_queries ? splat(room.minus_base[step]) : load(block.minus_base + n * width);
      const Vec delta = steps_are_queries ? splat(room.delta[step]) : load(block.delta + n * width);
      Vec p = exp2(load(room.p + cell) * c + minus_base);
      Vec ds = p * (load(room.ds + cell) - delta) * by;
      if (masked) {
        const IntVec seen = sees(strip, step, n);
        p = keep(seen, p);
        ds = keep(seen, ds);
      }
      store(room.p + cell, p);
      store(room.ds + cell, ds);
    }
}

template <bool steps_are_queries>
[[gnu::noinline]] void differentiate(const BackwardRoom& room, const BackwardBlock& block, const Shape& shape,
                                     const Strip& strip) {
  score_strip({room.x, padded(shape.channels), 1}, block.x, shape.channels, strip, room.p);
  score_strip({room.y, padded(shape.value_channels), 1}, block.y, shape.value_channels, strip, room.ds);
  differentiate_rows<steps_are_queries, true>(room, block, shape, strip, strip.begin, strip.full_begin);
  differentiate_rows<steps_are_queries, false>(room, block, shape, strip, strip.full_begin, strip.full_end);
  differentiate_rows<steps_are_queries, true>(room, block, shape, strip, strip.full_end, strip.end);
}

/// Rows that saw nothing have no gradient, whatever stands in dout: P = 0 there, and dP is made finite.
void load_query_block(const QueryGradientItem& item, Index row, Index count, float* spare, const BackwardBlock& block) {
  const Index x = padded(item.shape.channels), y = item.shape.value_channels;
  pack_lanes(item.q, item.shape.type, row, count, item.shape.channels, spare, block.x);
  pack_lanes(item.dout, item.shape.type, row, count, y, spare, block.y);
  zero(block.dx, x * lanes);
  for (Index lane = 0; lane < lanes; ++lane) {
    const float lse = lane < count ? number_at(item.lse, row + lane) : -infinity;
    block.minus_base[lane] = minus_base_of_lse(lse);
    block.delta[lane] = lse == -infinity ? 0.0F : number_at(item.delta, row + lane);
    block.touched[lane] = 0;
    if (lse == -infinity)
      for (Index c = 0; c < y; ++c) block.y[c * lanes + lane] = 0;
  }
}

void query_gradients(const QueryGradientItem& item, float* scratch) {
  const Shape& shape = item.shape;
  const BackwardRoom room = backward_room(shape, scratch);
  const Group& group = item.group;
  const auto rows_of = [&](Index b) { return least(lanes, group.end - group.begin - b * lanes); };
  const Index blocks = (group.end - group.begin + lanes - 1) / lanes;
  for (Index b = 0; b < blocks; ++b)
    load_query_block(item, group.begin + b * lanes, rows_of(b), room.row, block_at(room, b));
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece) {
    touch(*piece, group, room);
    const Steps seen = steps_seen(*piece, group.begin, group.end);
    for (Index from = chunk_of(*piece, seen.begin); from < seen.end; from += chunk) {
      const Index size = least(chunk, seen.end - from);
      pack_rows(item.k, shape.type, from, size, shape.channels, room.x);
      pack_rows(item.v, shape.type, from, size, shape.value_channels, room.y);
      spread_rows(room.x, size, shape.channels, room.x_panels);
      const Steps next{from + size, least(from + size + chunk, seen.end)};
      for (Index b = 0; b < blocks; ++b) {
        prefetch_rows(item.k, shape.type, next, shape.channels, b, blocks);
        prefetch_rows(item.v, shape.type, next, shape.value_channels, b, blocks);
        Strip strip;
        if (!cut_strip(*piece, group.begin + b * lanes, rows_of(b), from, size, strip)) continue;
        const BackwardBlock block = block_at(room, b);
        differentiate<false>(room, block, shape, strip);
        accumulate({room.x_panels, panel_pitch}, room.ds, strip.begin, strip.end, shape.channels, block.dx);
      }
    }
  }
  for (Index b = 0; b < blocks; ++b) {
    const BackwardBlock block = block_at(room, b);
    add_lanes(block.dx, block.touched, group.begin + b * lanes, rows_of(b), shape.channels, item.dq);
  }
}

/// Packs queries [from, from + size) of one head with their statistics; rows that saw nothing as in load_query_block.
void pack_queries(const KeyGradientItem& item, Index head, Index from, Index size, const BackwardRoom& room) {
  const Shape& shape = item.shape;
  const Index y = padded(shape.value_channels), by = head * item.number_head_bytes;
  pack_rows({item.q.data + head * item.q_head_bytes, item.q.pitch}, shape.type, from, size, shape.channels, room.x);
  pack_rows({item.dout.data + head * item.dout_head_bytes, item.dout.pitch}, shape.type, from, size,
            shape.value_channels, room.y);
  for (Index i = 0; i < size; ++i) {
    const float lse = number_at(Source{item.lse.data + by, item.lse.pitch}, from + i);
    room.minus_base[i] = minus_base_of_lse(lse);
    room.delta[i] = lse == -infinity ? 0.0F : number_at(Source{item.delta.data + by, item.delta.pitch}, from + i);
    if (lse == -infinity) zero(room.y + i * y, y);
  }
  spread_rows(room.x, size, shape.channels, room.x_panels);
  spread_rows(room.y, size, shape.value_channels, room.y_panels);
}

void key_gradients(const KeyGradientItem& item, float* scratch) {
  const Shape& shape = item.shape;
  const BackwardRoom room = backward_room(shape, scratch);
  const Group& group = item.group;
  const auto rows_of = [&](Index b) { return least(lanes, group.end - group.begin - b * lanes); };
  const Index blocks = (group.end - group.begin + lanes - 1) / lanes;
  for (Index b = 0; b < blocks; ++b) {
    const BackwardBlock block = block_at(room, b);
    pack_lanes(item.k, shape.type, group.begin + b * lanes, rows_of(b), shape.channels, room.row, block.x);
    pack_lanes(item.v, shape.type, group.begin + b * lanes, rows_of(b), shape.value_channels, room.row, block.y);
    zero(block.dx, padded(shape.channels) * lanes);
    zero(block.dy, padded(shape.value_channels) * lanes);
    zero(block.touched, lanes);
  }
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece) {
    touch(*piece, group, room);
    const Steps seen = steps_seen(*piece, group.begin, group.end);
    for (Index head = 0; head < item.heads; ++head)
      for (Index from = chunk_of(*piece, seen.begin); from < seen.end; from += chunk) {
        const Index size = least(chunk, seen.end - from);
        pack_queries(item, head, from, size, room);
        const Steps next{from + size, least(from + size + chunk, seen.end)};
        for (Index b = 0; b < blocks; ++b) {
          prefetch_rows({item.q.data + head * item.q_head_bytes, item.q.pitch}, shape.type, next, shape.channels, b,
                        blocks);
          prefetch_rows({item.dout.data + head * item.dout_head_bytes, item.dout.pitch}, shape.type, next,
                        shape.value_channels, b, blocks);
          Strip strip;
          if (!cut_strip(*piece, group.begin + b * lanes, rows_of(b), from, size, strip)) continue;
          const BackwardBlock block = block_at(room, b);
          differentiate<true>(room, block, shape, strip);
          accumulate({room.y_panels, panel_pitch}, room.p, strip.begin, strip.end, shape.value_channels, block.dy);
          accumulate({room.x_panels, panel_pitch}, room.ds, strip.begin, strip.end, shape.channels, block.dx);
        }
      }
  }
  for (Index b = 0; b < blocks; ++b) {
    const BackwardBlock block = block_at(room, b);
    add_lanes(block.dx, block.touched, group.begin + b * lanes, rows_of(b), shape.channels, item.dk);
    add_lanes(block.dy, block.touched, group.begin + b * lanes, rows_of(b), shape.value_channels, item.dv);
  }
}

}  // namespace
}  // namespace annulus::cpu

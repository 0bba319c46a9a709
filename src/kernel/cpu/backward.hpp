#pragma once
#include "kernel/cpu/turns.hpp"

// Backward over one group of key rows. Lanes are keys, steps are queries; P = 2^(c S - base), c = scale log2(e), base = lse
// log2(e):
//   S = Q K^T,  dP = dO V^T,  dS = scale P (dP - delta)      [queries, lanes]
//   dV^T += dO^T P,  dK^T += Q^T dS                          [channels, lanes], summed here and added once
//   dQ += dS K                                               [queries, channels], one chunk of queries at a time
// Every group of keys adds to the same rows of dQ, so groups take turns there: the order of a sum is that of the groups,
// whichever thread comes first. Queries are walked from the last to the first: under a causal mask all groups see the
// last ones, and nobody has to wait for rows that another group reaches late.

namespace annulus::cpu {
namespace {

/// One block of keys.
struct BackwardBlock {
  float *k, *v;    ///< [channels][lanes]
  float *dk, *dv;  ///< the same
  float* k_rows;   ///< [lanes][row_pitch(channels)]
  float* touched;
};

struct BackwardRoom {
  BackwardBlock first;
  Index block_floats;
  float *row, *q, *dout, *q_panels, *dout_panels, *p, *ds, *minus_base, *delta;  ///< of a chunk of queries
  float* dq;                                                                     ///< [chunk][row_pitch(channels)]
  Index floats;
};

/// Channels as whole vectors.
ANNULUS_INLINE Index row_pitch(Index channels) { return round_up(channels, width); }

/// Blocks of lanes in one item: half as many as forward, since each has twice the arrays, and as forward two at least.
ANNULUS_INLINE Index backward_blocks_of(const Shape& shape) { return most(2, blocks_of(shape) / 2); }

BackwardRoom backward_room(const Shape& shape, Index blocks, float* scratch) {
  Carver carve{scratch};
  BackwardRoom room{};
  const Index x = padded(shape.channels), y = padded(shape.value_channels), pitch = row_pitch(shape.channels);
  room.row = carve.take(most(x, y));
  room.q = carve.take((chunk + unit) * x);
  room.dout = carve.take((chunk + unit) * y);
  room.q_panels = carve.take(panel_floats(shape.channels));
  room.dout_panels = carve.take(panel_floats(shape.value_channels));
  room.p = carve.take((chunk + unit) * lanes);
  room.ds = carve.take((chunk + unit) * lanes);
  room.minus_base = carve.take(chunk + unit);
  room.delta = carve.take(chunk + unit);
  room.dq = carve.take((chunk + unit) * pitch);
  const Index begin = carve.used;
  room.first.k = carve.take(x * lanes);
  room.first.v = carve.take(y * lanes);
  room.first.dk = carve.take(x * lanes);
  room.first.dv = carve.take(y * lanes);
  room.first.k_rows = carve.take(lanes * pitch);
  room.first.touched = carve.take(lanes);
  room.block_floats = carve.used - begin;
  room.floats = begin + room.block_floats * blocks;
  return room;
}

ANNULUS_INLINE BackwardBlock block_at(const BackwardRoom& room, Index b) {
  BackwardBlock block = room.first;
  const Index by = b * room.block_floats;
  block.k += by, block.v += by, block.dk += by, block.dv += by, block.k_rows += by, block.touched += by;
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

/// P and dS in place of S and dP over steps [begin, end).
template <bool masked>
ANNULUS_INLINE void differentiate_rows(const BackwardRoom& room, const Shape& shape, const Strip& strip, Index begin,
                                       Index end) {
  const Vec c = splat(shape.log2_scale), by = splat(shape.scale);
#pragma GCC unroll 1
  for (Index step = begin; step < end; ++step)
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) {
      const Index cell = step * lanes + n * width;
      Vec p = exp2(load(room.p + cell) * c + splat(room.minus_base[step]));
      Vec ds = p * (load(room.ds + cell) - splat(room.delta[step])) * by;
      if (masked) {
        const IntVec seen = sees(strip, step, n);
        p = keep(seen, p);
        ds = keep(seen, ds);
      }
      store(room.p + cell, p);
      store(room.ds + cell, ds);
    }
}

[[gnu::noinline]] void differentiate(const BackwardRoom& room, const BackwardBlock& block, const Shape& shape,
                                     const Strip& strip) {
  score_strip({room.q, padded(shape.channels), 1}, block.k, shape.channels, strip, room.p);
  score_strip({room.dout, padded(shape.value_channels), 1}, block.v, shape.value_channels, strip, room.ds);
  differentiate_rows<true>(room, shape, strip, strip.begin, strip.full_begin);
  differentiate_rows<false>(room, shape, strip, strip.full_begin, strip.full_end);
  differentiate_rows<true>(room, shape, strip, strip.full_end, strip.end);
}

/// dQ += dS K for one unit of queries and `count` vectors of channels.
template <int count>
ANNULUS_INLINE void multiply_lanes(const float* ds, const float* k, Index pitch, float* dq) {
  Vec sum[unit][count];
#pragma GCC unroll 8
  for (int r = 0; r < unit; ++r)
#pragma GCC unroll 3
    for (int n = 0; n < count; ++n) sum[r][n] = Vec{};
#pragma GCC unroll 4
  for (Index lane = 0; lane < lanes; ++lane) {
    Vec x[count];
#pragma GCC unroll 3
    for (int n = 0; n < count; ++n) x[n] = load(k + lane * pitch + n * width);
#pragma GCC unroll 8
    for (int r = 0; r < unit; ++r) {
      const Vec a = splat(ds[r * lanes + lane]);
#pragma GCC unroll 3
      for (int n = 0; n < count; ++n) sum[r][n] += a * x[n];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < unit; ++r)
#pragma GCC unroll 3
    for (int n = 0; n < count; ++n) {
      float* cell = dq + r * pitch + n * width;
      store(cell, load(cell) + sum[r][n]);
    }
}

/// The chunk's dQ += dS K of a strip. Whole units, as in score_strip: dS behind the strip becomes 0.
[[gnu::noinline]] void add_query_gradients(const BackwardRoom& room, const BackwardBlock& block, Index channels,
                                           const Strip& strip) {
  const Index pitch = row_pitch(channels);
  zero(room.ds + strip.end * lanes, unit * lanes);
  for (Index c = 0; c < pitch;) {
    const Index left = (pitch - c) / width;  // a lone vector would starve the units: four are two and two
    const float* k = block.k_rows + c;
    const Index taken = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
    for (Index step = strip.begin; step < strip.end; step += unit) {
      const float* ds = room.ds + step * lanes;
      float* dq = room.dq + step * pitch + c;
      if (taken == 3) multiply_lanes<3>(ds, k, pitch, dq);
      else if (taken == 2) multiply_lanes<2>(ds, k, pitch, dq);
      else multiply_lanes<1>(ds, k, pitch, dq);
    }
    c += taken * width;
  }
}

/// Packs queries [from, from + size) of one head with their statistics. Rows that saw nothing have no gradient, whatever
/// stands in dout: P = 0 there, and dP is made finite.
void pack_queries(const GradientItem& item, Index head, Index from, Index size, const BackwardRoom& room) {
  const Shape& shape = item.shape;
  const Index y = padded(shape.value_channels), by = head * item.number_head_bytes;
  pack_rows({item.q.data + head * item.q_head_bytes, item.q.pitch}, shape.type, from, size, shape.channels, room.q);
  pack_rows({item.dout.data + head * item.dout_head_bytes, item.dout.pitch}, shape.type, from, size,
            shape.value_channels, room.dout);
  for (Index i = 0; i < size; ++i) {
    const float lse = number_at(Source{item.lse.data + by, item.lse.pitch}, from + i);
    room.minus_base[i] = minus_base_of_lse(lse);
    room.delta[i] = lse == -infinity ? 0.0F : number_at(Source{item.delta.data + by, item.delta.pitch}, from + i);
    if (lse == -infinity) zero(room.dout + i * y, y);
  }
  spread_rows(room.q, size, shape.channels, room.q_panels);
  spread_rows(room.dout, size, shape.value_channels, room.dout_panels);
}

void load_keys(const GradientItem& item, Index row, Index count, float* spare, const BackwardBlock& block) {
  const Shape& shape = item.shape;
  const Index pitch = row_pitch(shape.channels);
  pack_lanes(item.k, shape.type, row, count, shape.channels, spare, block.k);
  pack_lanes(item.v, shape.type, row, count, shape.value_channels, spare, block.v);
  zero(block.k_rows, lanes * pitch);
  for (Index lane = 0; lane < count; ++lane)
    read_row(item.k.data + (row + lane) * item.k.pitch, shape.type, shape.channels, block.k_rows + lane * pitch);
  zero(block.dk, padded(shape.channels) * lanes);
  zero(block.dv, padded(shape.value_channels) * lanes);
  zero(block.touched, lanes);
}

/// Queries of one head that are read at once for all parts of a group: rows; begin: the first one that some key sees.
struct QueryChunk {
  const Piece& piece;
  Index head;
  Steps rows;
  Index begin;
};

/// One chunk of queries of one head against all blocks of keys; their dq is left in the room.
void differentiate_chunk(const GradientItem& item, const QueryChunk& of, Steps rows, const BackwardRoom& room) {
  const Shape& shape = item.shape;
  const Group& group = item.group;
  const Index head = of.head, from = rows.begin, size = rows.end - from, pitch = row_pitch(shape.channels);
  const Index blocks = (group.end - group.begin + lanes - 1) / lanes;
  const Source q{item.q.data + head * item.q_head_bytes, item.q.pitch},
      dout{item.dout.data + head * item.dout_head_bytes, item.dout.pitch};
  pack_queries(item, head, from, size, room);
  zero(room.dq, (size + unit) * pitch);
  const Steps next{most(of.begin, from - chunk), from};
  for (Index b = 0; b < blocks; ++b) {
    prefetch_rows(q, shape.type, next, shape.channels, b, blocks);
    prefetch_rows(dout, shape.type, next, shape.value_channels, b, blocks);
    const Index row = group.begin + b * lanes;
    Strip strip;
    if (!cut_strip(of.piece, row, least(lanes, group.end - row), from, size, strip)) continue;
    const BackwardBlock block = block_at(room, b);
    differentiate(room, block, shape, strip);
    accumulate({room.dout_panels, panel_pitch}, room.p, strip.begin, strip.end, shape.value_channels, block.dv);
    accumulate({room.q_panels, panel_pitch}, room.ds, strip.begin, strip.end, shape.channels, block.dk);
    add_query_gradients(room, block, shape.channels, strip);
  }
}

/// For every chunk of at most `size` queries that the group sees, the last ones first, calls read(queries); then for each part
/// that sees some of it differentiate(queries, part, rows), with rows from the chunk's first to the last that the part sees,
/// and add(queries, rows, begin) when it is the part's turn to add to those from `begin` on. Pieces of several parts lie one
/// after another in rows: a part waits for no work that comes later.
template <Index size, class Read, class Differentiate, class Add>
ANNULUS_INLINE void for_each_chunk(const GradientItem& item, const Read& read, const Differentiate& differentiate,
                                   const Add& add) {
  const Group& group = item.group;
  const Index parts = (group.end - group.begin + item.part_lanes - 1) / item.part_lanes;
  const auto part_at = [&](Index p) {
    const Index begin = group.begin + p * item.part_lanes;
    return Steps{begin, least(begin + item.part_lanes, group.end)};
  };
  const auto seen_by = [&](Steps part, Index n) { return steps_seen(group.pieces[n], part.begin, part.end); };
  const auto end_of = [&](Steps part, Index pieces) {  // of the rows that the first pieces show a part
    Index end = 0;
    for (Index n = 0; n < pieces; ++n) {
      const Steps seen = seen_by(part, n);
      if (seen.begin < seen.end) end = most(end, seen.end);
    }
    return end;
  };
  for (Index n = group.piece_count - 1; n >= 0; --n) {
    const Piece& piece = group.pieces[n];
    const Steps seen = seen_by({group.begin, group.end}, n);
    if (seen.begin >= seen.end) continue;
    const Index last = seen.end - 1 - (seen.end - 1 - piece.step_begin) % size;  // cut alike for every group
    for (Index head = 0; head < item.heads; ++head) {
      const Index turn_head = item.first_head + head;
      for (Index p = 0; p < parts; ++p) end_turn(item.turns, turn_head, end_of(part_at(p), n + 1), p);
      for (Index from = last; from + size > seen.begin; from -= size) {
        const QueryChunk queries{piece, head, {from, least(from + size, seen.end)}, most(seen.begin, from)};
        read(queries);
        for (Index p = 0; p < parts; ++p) {
          const Steps part = part_at(p), here = seen_by(part, n), rows{from, least(queries.rows.end, here.end)};
          const Index begin = most(here.begin, from);
          if (begin >= rows.end) continue;
          differentiate(queries, part, rows);
          await_turn(item.turns, turn_head, begin, p);
          add(queries, rows, begin);
          end_turn(item.turns, turn_head, most(end_of(part, n), here.begin < from ? from : 0), p);
        }
      }
    }
  }
  for (Index head = 0; head < item.heads; ++head)
    for (Index p = 0; p < parts; ++p) end_turn(item.turns, item.first_head + head, -1, p);
}

/// Every block of the group with its keys, and sums of 0.
void load_group(const GradientItem& item, const BackwardRoom& room) {
  const Group& group = item.group;
  for (Index row = group.begin, b = 0; row < group.end; row += lanes, ++b)
    load_keys(item, row, least(lanes, group.end - row), room.row, block_at(room, b));
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece)
    touch(*piece, group, room);
}

/// What the group's keys have got so far.
void add_group(const GradientItem& item, const BackwardRoom& room) {
  const Group& group = item.group;
  for (Index row = group.begin, b = 0; row < group.end; row += lanes, ++b) {
    const BackwardBlock block = block_at(room, b);
    const Index count = least(lanes, group.end - row);
    add_lanes(block.dk, block.touched, row, count, item.shape.channels, item.dk);
    add_lanes(block.dv, block.touched, row, count, item.shape.value_channels, item.dv);
  }
}

/// What the chunk's queries have got.
void add_chunk(const GradientItem& item, const BackwardRoom& room, Index head, Steps rows, Index begin) {
  for (Index row = begin; row < rows.end; ++row) {
    auto* dq = reinterpret_cast<float*>(item.dq.data + head * item.dq_head_bytes + row * item.dq.pitch);
    const float* from = room.dq + (row - rows.begin) * row_pitch(item.shape.channels);
    for (Index c = 0; c < item.shape.channels; ++c) dq[c] += from[c];
  }
}

void gradients(const GradientItem& item, float* scratch) {
  const BackwardRoom room = backward_room(item.shape, backward_blocks_of(item.shape), scratch);
  load_group(item, room);
  for_each_chunk<chunk>(
      item, [](const QueryChunk&) {},
      [&](const QueryChunk& of, Steps, Steps rows) { differentiate_chunk(item, of, rows, room); },
      [&](const QueryChunk& of, Steps rows, Index begin) { add_chunk(item, room, of.head, rows, begin); });
  add_group(item, room);
}

}  // namespace
}  // namespace annulus::cpu

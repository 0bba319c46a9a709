#pragma once
#include "kernel/cpu/gradient_walk.hpp"

// Backward over one group of key rows. Lanes are keys, steps are queries; P = 2^(c S - base), c = scale log2(e), base = lse
// log2(e):
//   S = Q K^T,  dP = dO V^T,  dS = scale P (dP - delta)      [queries, lanes], a unit of queries at a time
//   dV^T += dO^T P,  dK^T += Q^T dS                          [channels, lanes], summed here and added once
//   dQ += dS K                                               [queries, channels], one chunk of queries at a time
// Operands say what a word of a factor holds: one number here, two in pair_backward.hpp.

namespace annulus::cpu {
namespace {

/// One block of keys. Factors are words, sums are numbers.
struct BackwardBlock {
  float *k, *v;    ///< [words of channels][lanes]
  float *dk, *dv;  ///< [channels][lanes]
  float* k_rows;   ///< [words of lanes][row_pitch(channels)]
  float* touched;
};

/// Of a chunk of queries, but for the blocks.
struct BackwardRoom {
  BackwardBlock first;
  Index block_floats;
  float *row, *q, *dout, *q_panels, *dout_panels, *minus_base, *delta;
  float *s, *dp;   ///< [unit][lanes]
  float *p, *ds;   ///< [words of steps][lanes]
  float* ds_rows;  ///< [step][words of lanes]; where a word is a number, the same as ds
  float* dq;       ///< [step][row_pitch(channels)]
  Index floats;
};

/// Channels as whole vectors.
ANNULUS_INLINE Index row_pitch(Index channels) { return round_up(channels, width); }

template <class Operands>
BackwardRoom backward_room(const Shape& shape, Index blocks, float* scratch) {
  using Words = typename Operands::Words;
  Carver carve{scratch};
  BackwardRoom room{};
  const Index x = padded(shape.channels), y = padded(shape.value_channels), pitch = row_pitch(shape.channels),
              x_words = padded(words_of<Words>(x)), y_words = padded(words_of<Words>(y));
  room.row = carve.take(most(x, y));
  room.q = carve.take((chunk + unit) * x_words);
  room.dout = carve.take((chunk + unit) * y_words);
  room.q_panels = carve.take(panel_floats(shape.channels));
  room.dout_panels = carve.take(panel_floats(shape.value_channels));
  room.s = carve.take(unit * lanes);
  room.dp = carve.take(unit * lanes);
  room.p = carve.take((chunk + unit) / Words::in_word * lanes);
  room.ds = carve.take((chunk + unit) / Words::in_word * lanes);
  room.ds_rows = Words::in_word == 1 ? room.ds : carve.take((chunk + unit) * lanes / Words::in_word);
  room.minus_base = carve.take(chunk + unit);
  room.delta = carve.take(chunk + unit);
  room.dq = carve.take((chunk + unit) * pitch);
  const Index begin = carve.used;
  room.first.k = carve.take(x_words * lanes);
  room.first.v = carve.take(y_words * lanes);
  room.first.dk = carve.take(x * lanes);
  room.first.dv = carve.take(y * lanes);
  room.first.k_rows = carve.take(lanes / Words::in_word * pitch);
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

/// Products of f32 numbers: any type of q, k, v and dout.
struct SingleGradients {
  using Words = Singles;
  /// Half as many as forward, since each has twice the arrays, and as forward two at least.
  static Index blocks(const Shape& shape) { return most(2, blocks_of(shape) / 2); }

  /// Rows as words, with room for padded(channels) numbers.
  static void pack_rows(const Source& from, DType type, Index begin, Index count, Index channels, float* to) {
    cpu::pack_rows(from, type, begin, count, channels, to);
  }
  /// The same rows as panels. row: spare
  static void spread(const float* rows, Index count, Index channels, float*, float* panels) {
    spread_rows(rows, count, channels, panels);
  }
  static void pack_lanes(const Source& from, DType type, Index begin, Index count, Index channels, float* row,
                         float* to) {
    cpu::pack_lanes(from, type, begin, count, channels, row, to);
  }
  /// [words of lanes][row_pitch(channels)], the tails zeros.
  static void pack_key_rows(const Source& from, DType type, Index begin, Index count, Index channels, float*,
                            float* to) {
    const Index pitch = row_pitch(channels);
    zero(to, lanes * pitch);
    for (Index lane = 0; lane < count; ++lane)
      read_row(from.data + (begin + lane) * from.pitch, type, channels, to + lane * pitch);
  }
  /// P and dS of steps [step, step + in_word) and vector n of the lanes.
  ANNULUS_INLINE static void keep_weights(const Vec (&p)[1], const Vec (&ds)[1], Index step, int n,
                                          const BackwardRoom& room) {
    store(room.p + step * lanes + n * width, p[0]);
    store(room.ds + step * lanes + n * width, ds[0]);
  }
};

/// P and dS of the unit of steps whose S and dP stand in the room. masked: some lane does not see some of them.
template <class Operands, bool masked>
ANNULUS_INLINE void weigh_unit(const BackwardRoom& room, const Shape& shape, const Strip& strip, Index begin) {
  constexpr int together = Operands::Words::in_word;
  const Vec c = splat(shape.log2_scale), by = splat(shape.scale);
#pragma GCC unroll 1
  for (Index r = 0; r < unit; r += together)
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) {
      Vec p[together], ds[together];
#pragma GCC unroll 2
      for (int t = 0; t < together; ++t) {
        const Index step = begin + r + t, cell = (r + t) * lanes + n * width;
        p[t] = exp2(load(room.s + cell) * c + splat(room.minus_base[step]));
        ds[t] = p[t] * (load(room.dp + cell) - splat(room.delta[step])) * by;
        if (masked) {
          const IntVec seen = sees(strip, step, n);
          p[t] = keep(seen, p[t]);
          ds[t] = keep(seen, ds[t]);
        }
      }
      Operands::keep_weights(p, ds, begin + r, n, room);
    }
}

/// The first step of a strip, and one after its last, in whole words and units.
template <class Words>
ANNULUS_INLINE Steps whole_units(const Strip& strip) {
  const Index begin = strip.begin - strip.begin % Words::in_word;
  return {begin, begin + round_up(strip.end - begin, unit)};
}

/// P and dS of a strip, 0 where a lane does not see a step.
template <class Operands>
[[gnu::noinline]] void differentiate(const BackwardRoom& room, const BackwardBlock& block, const Shape& shape,
                                     const Strip& strip) {
  using Words = typename Operands::Words;
  const Index x = words_of<Words>(shape.channels), y = words_of<Words>(shape.value_channels), x_pitch = padded(x),
              y_pitch = padded(y);
  const Steps steps = whole_units<Words>(strip);
  for (Index step = steps.begin; step < steps.end; step += unit) {
    score_unit<Words>({room.q + step * x_pitch, x_pitch, 1}, block.k, x, room.s);
    score_unit<Words>({room.dout + step * y_pitch, y_pitch, 1}, block.v, y, room.dp);
    if (step >= strip.full_begin && step + unit <= strip.full_end)
      weigh_unit<Operands, false>(room, shape, strip, step);
    else weigh_unit<Operands, true>(room, shape, strip, step);
  }
}

/// dQ += dS K for one unit of queries and `count` vectors of channels.
template <class Words, int count>
ANNULUS_INLINE void multiply_lanes(const float* ds, const float* k, Index pitch, float* dq) {
  constexpr Index words = lanes / Words::in_word;
  Vec sum[unit][count];
#pragma GCC unroll 8
  for (int r = 0; r < unit; ++r)
#pragma GCC unroll 3
    for (int n = 0; n < count; ++n) sum[r][n] = Vec{};
#pragma GCC unroll 4
  for (Index lane = 0; lane < words; ++lane) {
    Vec x[count];
#pragma GCC unroll 3
    for (int n = 0; n < count; ++n) x[n] = load(k + lane * pitch + n * width);
#pragma GCC unroll 8
    for (int r = 0; r < unit; ++r) {
      const Vec a = splat(ds[r * words + lane]);
#pragma GCC unroll 3
      for (int n = 0; n < count; ++n) sum[r][n] = Words::add(sum[r][n], a, x[n]);
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

/// The chunk's dQ += dS K of a strip, in whole units as they were weighed.
template <class Words>
[[gnu::noinline]] void add_query_gradients(const BackwardRoom& room, const BackwardBlock& block, Index channels,
                                           const Strip& strip) {
  const Index pitch = row_pitch(channels);
  const Steps steps = whole_units<Words>(strip);
  for (Index c = 0; c < pitch;) {
    const Index left = (pitch - c) / width;  // a lone vector would starve the units: four are two and two
    const float* k = block.k_rows + c;
    const Index taken = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
    for (Index step = steps.begin; step < steps.end; step += unit) {
      const float* ds = room.ds_rows + step * (lanes / Words::in_word);
      float* dq = room.dq + step * pitch + c;
      if (taken == 3) multiply_lanes<Words, 3>(ds, k, pitch, dq);
      else if (taken == 2) multiply_lanes<Words, 2>(ds, k, pitch, dq);
      else multiply_lanes<Words, 1>(ds, k, pitch, dq);
    }
    c += taken * width;
  }
}

/// Packs queries [from, from + size) of one head with their statistics. Rows that saw nothing have no gradient, whatever
/// stands in dout: P = 0 there, and dP is made finite.
template <class Operands>
void pack_queries(const GradientItem& item, Index head, Index from, Index size, const BackwardRoom& room) {
  const Shape& shape = item.shape;
  const Index y = padded(words_of<typename Operands::Words>(shape.value_channels)), by = head * item.number_head_bytes;
  Operands::pack_rows({item.q.data + head * item.q_head_bytes, item.q.pitch}, shape.type, from, size, shape.channels,
                      room.q);
  Operands::pack_rows({item.dout.data + head * item.dout_head_bytes, item.dout.pitch}, shape.type, from, size,
                      shape.value_channels, room.dout);
  for (Index i = 0; i < size; ++i) {
    const float lse = number_at(Source{item.lse.data + by, item.lse.pitch}, from + i);
    room.minus_base[i] = minus_base_of_lse(lse);
    room.delta[i] = lse == -infinity ? 0.0F : number_at(Source{item.delta.data + by, item.delta.pitch}, from + i);
    if (lse == -infinity) zero(room.dout + i * y, y);
  }
  Operands::spread(room.q, size, shape.channels, room.row, room.q_panels);
  Operands::spread(room.dout, size, shape.value_channels, room.row, room.dout_panels);
}

template <class Operands>
void load_keys(const GradientItem& item, Index row, Index count, float* spare, const BackwardBlock& block) {
  const Shape& shape = item.shape;
  Operands::pack_lanes(item.k, shape.type, row, count, shape.channels, spare, block.k);
  Operands::pack_lanes(item.v, shape.type, row, count, shape.value_channels, spare, block.v);
  Operands::pack_key_rows(item.k, shape.type, row, count, shape.channels, spare, block.k_rows);
  zero(block.dk, padded(shape.channels) * lanes);
  zero(block.dv, padded(shape.value_channels) * lanes);
  zero(block.touched, lanes);
}

/// Packs a chunk of queries of one head.
template <class Operands>
void read_chunk(const GradientItem& item, const QueryChunk& of, const BackwardRoom& room) {
  pack_queries<Operands>(item, of.head, of.rows.begin, of.rows.end - of.rows.begin, room);
}

/// The chunk's queries `rows` against the blocks of keys of a part; their dq is left in the room.
template <class Operands>
void differentiate_chunk(const GradientItem& item, const QueryChunk& of, Steps part, Steps rows,
                         const BackwardRoom& room) {
  using Words = typename Operands::Words;
  const Shape& shape = item.shape;
  const Index head = of.head, from = rows.begin, size = rows.end - from, pitch = row_pitch(shape.channels);
  const Index first = (part.begin - item.group.begin) / lanes, blocks = (part.end - part.begin + lanes - 1) / lanes;
  const Source q{item.q.data + head * item.q_head_bytes, item.q.pitch},
      dout{item.dout.data + head * item.dout_head_bytes, item.dout.pitch};
  zero(room.dq, (size + unit) * pitch);
  const bool last = part.end == item.group.end;  // of the parts: fetches what comes after this chunk
  const Steps next{last ? most(of.piece.step_begin, from - chunk) : from, from};
  for (Index b = 0; b < blocks; ++b) {
    prefetch_rows(q, shape.type, next, shape.channels, b, blocks);
    prefetch_rows(dout, shape.type, next, shape.value_channels, b, blocks);
    const Index row = part.begin + b * lanes;
    Strip strip;
    if (!cut_strip(of.piece, row, least(lanes, part.end - row), from, size, strip, unit)) continue;
    const BackwardBlock block = block_at(room, first + b);
    differentiate<Operands>(room, block, shape, strip);
    const Index begin = strip.begin / Words::in_word, end = words_of<Words>(strip.end);
    accumulate<Words>({room.dout_panels, panel_pitch}, room.p, begin, end, shape.value_channels, block.dv);
    accumulate<Words>({room.q_panels, panel_pitch}, room.ds, begin, end, shape.channels, block.dk);
    add_query_gradients<Words>(room, block, shape.channels, strip);
  }
}

/// Every block of the group with its keys, and sums of 0.
template <class Operands>
void load_group(const GradientItem& item, const BackwardRoom& room) {
  const Group& group = item.group;
  for (Index row = group.begin, b = 0; row < group.end; row += lanes, ++b)
    load_keys<Operands>(item, row, least(lanes, group.end - row), room.row, block_at(room, b));
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

template <class Operands>
void gradients(const GradientItem& item, float* scratch) {
  const BackwardRoom room = backward_room<Operands>(item.shape, Operands::blocks(item.shape), scratch);
  load_group<Operands>(item, room);
  for_each_chunk<chunk>(
      item, [&](const QueryChunk& of) { read_chunk<Operands>(item, of, room); },
      [&](const QueryChunk& of, Steps part, Steps rows) { differentiate_chunk<Operands>(item, of, part, rows, room); },
      [&](const QueryChunk& of, Steps rows, Index begin) { add_chunk(item, room, of.head, rows, begin); });
  add_group(item, room);
}

}  // namespace
}  // namespace annulus::cpu

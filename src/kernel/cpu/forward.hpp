#pragma once
#include "kernel/cpu/forward_block.hpp"

// Forward over one group of query rows. Lanes are queries, so K and V enter as broadcasts and row statistics stay
// vertical:
//   S^T = K Q^T                      [keys, lanes]
//   P^T = 2^(c S^T - base)           c = scale log2(e), base = top log2(e), per lane
//   O^T = O^T + V^T P^T              [value_channels, lanes], unnormalised f32
// There is no running maximum. The reference `top` of a lane is the largest of the first scores it meets; f32 keeps its
// relative precision at any reference, so it only has to move when the sum leaves 2^32: then the strip is computed
// again with a new one. base is rounded to f32, the same way whenever the same top comes back, so out and sum share its
// error and it cancels. (Only scores beyond 2^30, whose f32 neighbours are 64 nats apart, can be lost to that
// rounding.)

namespace annulus::cpu {
namespace {

constexpr float sum_limit = 0x1p32F;
/// Strips summed in out before they go to total.
constexpr float strips_in_out = 16;

/// p = 2^(c s - base) in place over steps [begin, end), added to sums.
template <bool masked>
ANNULUS_INLINE void weigh_rows(const Strip& strip, Index begin, Index end, float c, const float* minus_base, float* p,
                               Vec (&sums)[vectors]) {
#pragma GCC unroll 1
  for (Index step = begin; step < end; ++step)
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) {
      float* cell = p + step * lanes + n * width;
      Vec x = exp2(load(cell) * splat(c) + load(minus_base + n * width));
      if (masked) x = keep(sees(strip, step, n), x);
      sums[n] += x;
      store(cell, x);
    }
}

/// P^T of a strip whose scores stand in p, with the references as they are; sums: of this strip.
[[gnu::noinline]] void weigh(const ForwardRoom& room, const ForwardBlock& block, const Shape& shape, const Strip& strip,
                             Vec (&sums)[vectors]) {
  const float c = shape.log2_scale;
  Vec sum[vectors] = {};
  weigh_rows<true>(strip, strip.begin, strip.full_begin, c, block.minus_base, room.p, sum);
  weigh_rows<false>(strip, strip.full_begin, strip.full_end, c, block.minus_base, room.p, sum);
  weigh_rows<true>(strip, strip.full_end, strip.end, c, block.minus_base, room.p, sum);
  for (int n = 0; n < vectors; ++n) sums[n] = sum[n];
}

/// The largest score that each lane sees in a strip whose scores stand in p (-inf: none).
[[gnu::noinline]] void find_largest(const ForwardRoom& room, const Shape& shape, const Strip& strip, float* largest) {
  Vec high[vectors];
  for (Vec& h : high) h = splat(-infinity);
  for (Index step = strip.begin; step < strip.end; ++step)
    for (int n = 0; n < vectors; ++n) {
      const Vec x = load(room.p + step * lanes + n * width) * splat(shape.scale);
      high[n] = larger(strip.whole(step) ? x : sees(strip, step, n) ? x : splat(-infinity), high[n]);
    }
  for (int n = 0; n < vectors; ++n) store(largest + n * width, high[n]);
}

/// Chooses references anew from the largest scores of a strip and from the sums so far, and brings out and sum to them.
void move_references(const ForwardBlock& block, const Shape& shape, const float* largest) {
  alignas(64) float factor[lanes];
  bool moved = false;
  for (Index lane = 0; lane < lanes; ++lane) {
    const float before = block.top[lane];
    float now = before > largest[lane] ? before : largest[lane];
    if (block.sum[lane] > 0x1p16F) {  // many keys, not large ones, filled the sum: make room
      const float fitting = before + __builtin_logf(block.sum[lane]);
      now = now > fitting ? now : fitting;
    }
    factor[lane] = 1;
    if (now == before || now == -infinity) continue;
    block.top[lane] = now;
    const float minus_base = block.minus_base[lane];
    block.minus_base[lane] = minus_base_of(now);
    const double fall = static_cast<double>(block.minus_base[lane]) - static_cast<double>(minus_base);
    factor[lane] = before == -infinity ? 0.0F : static_cast<float>(__builtin_exp2(fall));
    block.sum[lane] *= factor[lane];
    block.sum_rest[lane] *= factor[lane];
    moved |= before != -infinity;  // what has met no score is zeros
  }
  if (!moved) return;
  for (Index c = 0; c < padded(shape.value_channels); ++c)
    for (int n = 0; n < vectors; ++n) {
      const Index cell = c * lanes + n * width;
      const Vec by = load(factor + n * width);
      store(block.out + cell, load(block.out + cell) * by);
      if (block.strips[1] != 0) store(block.total + cell, load(block.total + cell) * by);
    }
}

/// sum += x, exactly but for the rounding of sum_rest.
ANNULUS_INLINE void add_to_sum(const ForwardBlock& block, const Vec (&x)[vectors]) {
  for (int n = 0; n < vectors; ++n) {
    const Vec before = load(block.sum + n * width), after = before + x[n], added = after - before;
    const Vec lost = (before - (after - added)) + (x[n] - added);
    store(block.sum + n * width, after);
    store(block.sum_rest + n * width, load(block.sum_rest + n * width) + lost);
  }
}

/// Counts a strip that was added to out, and moves out to total when it holds enough: sums of sums, so that rounding
/// errors do not grow with the number of keys.
void settle(const ForwardBlock& block, const Shape& shape) {
  if (++block.strips[0] < strips_in_out) return;
  block.strips[0] = 0;
  for (Index cell = 0; cell < padded(shape.value_channels) * lanes; cell += width) {
    store(block.total + cell, all_of(block, cell));
    store(block.out + cell, Vec{});
  }
  block.strips[1] = 1;
}

/// Is there a lane among the rows of the piece that has no reference?
ANNULUS_INLINE bool begins(const ForwardBlock& block) {
  IntVec none{};
  for (int n = 0; n < vectors; ++n)
    none |= (load(block.touched + n * width) > Vec{}) & (load(block.top + n * width) == splat(-infinity));
  return any(none);
}

/// All operands as f32: any type of q, k and v.
struct SingleOperands {
  static void pack_queries(const ForwardItem& item, Index row, Index count, float* spare, float* q) {
    pack_lanes(item.q, item.shape.type, row, count, item.shape.channels, spare, q);
  }
  /// Rows [from + begin, from + end) of the chunk that begins at `from`; begin: even
  static void pack_chunk(const ForwardItem& item, Index from, Steps rows, const ForwardRoom& room) {
    const Index channels = item.shape.channels, values = item.shape.value_channels;
    const DType type = item.shape.type;
    const Index first = from + rows.begin, count = rows.end - rows.begin;
    pack_rows(item.k, type, first, count, channels, room.k + rows.begin * padded(channels));
    pack_panels(item.v, type, first, count, values, room.row, room.panels + rows.begin * unit);
    *room.values = {rows.end, ChunkValues::unknown};
  }
  /// S^T into room.p
  ANNULUS_INLINE static void score(const ForwardRoom& room, const float* q, const Shape& shape, const Strip& strip) {
    score_strip({room.k, padded(shape.channels), 1}, q, shape.channels, strip, room.p);
  }
  /// out += V^T P^T, with P^T in room.p, which may be overwritten
  ANNULUS_INLINE static void add_values(const ForwardRoom& room, const Shape& shape, const Strip& strip, float* out) {
    if (hides_infinite<Singles>(*room.values, room.panels, shape.value_channels, strip))
      return add_seen_values<Singles>(room.panels, room.p, shape.value_channels, strip, out);
    accumulate({room.panels, panel_pitch}, room.p, strip.begin, strip.end, shape.value_channels, out);
  }
};

/// Adds one strip to the block's state. Where a lane has no reference yet, or its sum left the limit, references are
/// chosen with a look at the scores.
template <class Operands>
void attend(const ForwardRoom& room, const ForwardBlock& block, const Shape& shape, const Strip& strip) {
  Vec sums[vectors];
  Operands::score(room, block.q, shape, strip);
  bool settled = !begins(block);
  if (settled) {
    weigh(room, block, shape, strip, sums);
    IntVec fits = ~IntVec{};
    for (int n = 0; n < vectors; ++n) fits &= load(block.sum + n * width) + sums[n] <= splat(sum_limit);
    settled = !any(~fits);
    if (!settled) Operands::score(room, block.q, shape, strip);  // again: P took its place
  }
  if (!settled) {
    alignas(64) float largest[lanes];
    find_largest(room, shape, strip, largest);
    move_references(block, shape, largest);
    weigh(room, block, shape, strip, sums);
  }
  add_to_sum(block, sums);
  Operands::add_values(room, shape, strip, block.out);
  settle(block, shape);
}

/// Heads that an item may have. Rows of one head lie far apart, and no processor guesses where the next one is; those of
/// several, read row by row, follow one another.
constexpr Index most_heads = vectors == 1 ? 8 : 1;

/// One head of an item, and where it is worked on.
struct HeadWork {
  ForwardItem item;
  ForwardRoom room;
  ChunkValues values;
};

ANNULUS_INLINE ForwardItem head_of(const ForwardItem& item, Index n) {
  ForwardItem head = item;
  head.q.data += n * item.q_head_bytes, head.k.data += n * item.k_head_bytes, head.v.data += n * item.v_head_bytes;
  head.out.data += n * item.out_head_bytes;
  head.top.data += n * item.number_head_bytes, head.sum.data += n * item.number_head_bytes;
  return head;
}

/// A chunk of all heads: of several a few rows of each in turn.
template <class Operands>
ANNULUS_INLINE void pack_chunks(const HeadWork* heads, Index count, Index from, Index size) {
  const Index step = count == 1 ? size : 2;
  for (Index row = 0; row < size; row += step)
    for (Index n = 0; n < count; ++n)
      Operands::pack_chunk(heads[n].item, from, {row, least(row + step, size)}, heads[n].room);
}

/// All tiles of the item, one packed chunk of keys after another, each for all blocks of lanes.
template <class Operands>
void forward(const ForwardItem& item, float* scratch) {
  const Shape& shape = item.shape;
  const Group& group = item.group;
  const auto rows_of = [&](Index b) { return least(lanes, group.end - group.begin - b * lanes); };
  const Index blocks = (group.end - group.begin + lanes - 1) / lanes;
  HeadWork heads[most_heads];
  for (Index n = 0; n < item.heads; ++n) {
    heads[n] = {head_of(item, n), forward_room(shape, item.heads == 1 ? blocks_of(shape) : blocks, scratch), {}};
    heads[n].room.values = &heads[n].values;
    scratch += heads[n].room.floats;
    heads[n].room.p = heads[0].room.p;  // stays near
    for (Index b = 0; b < blocks; ++b) {
      const ForwardBlock block = block_at(heads[n].room, b);
      const Index later = group.begin + (b + 1) * lanes;  // sent for now, as the results are by load_block
      prefetch_rows(heads[n].item.q, shape.type, {later, least(later + lanes, group.end)}, shape.channels, 0, 1);
      Operands::pack_queries(heads[n].item, group.begin + b * lanes, rows_of(b), heads[n].room.row, block.q);
      load_block(heads[n].item, group.begin + b * lanes, rows_of(b), heads[n].room.row, block);
    }
  }
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece) {
    for (Index n = 0; n < item.heads; ++n)
      for (Index row = most(group.begin, piece->lane_begin); row < least(group.end, piece->lane_end); ++row)
        block_at(heads[n].room, (row - group.begin) / lanes).touched[(row - group.begin) % lanes] = 1;
    const Steps seen = steps_seen(*piece, group.begin, group.end);
    for (Index from = chunk_of(*piece, seen.begin); from < seen.end; from += chunk) {
      const Index size = least(chunk, seen.end - from);
      pack_chunks<Operands>(heads, item.heads, from, size);
      const Steps next{from + size, least(from + size + chunk, seen.end)};
      for (Index b = 0; b < blocks; ++b) {
        Strip strip;
        const bool some = cut_strip(*piece, group.begin + b * lanes, rows_of(b), from, size, strip);
        for (Index n = 0; n < item.heads; ++n) {
          prefetch_rows(heads[n].item.k, shape.type, next, shape.channels, b, blocks);
          prefetch_rows(heads[n].item.v, shape.type, next, shape.value_channels, b, blocks);
          if (some) attend<Operands>(heads[n].room, block_at(heads[n].room, b), shape, strip);
        }
      }
    }
  }
  for (Index n = 0; n < item.heads; ++n)
    for (Index b = 0; b < blocks; ++b)
      store_block(heads[n].item, group.begin + b * lanes, rows_of(b), block_at(heads[n].room, b));
}

}  // namespace
}  // namespace annulus::cpu

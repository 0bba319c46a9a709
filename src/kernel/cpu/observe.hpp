#pragma once
#include "kernel/cpu/backward.hpp"

// Traces from S^T = K Q^T again, with the final lse: p = 2^(c S - base), base = lse log2(e). Per query, lanes are
// queries (row_traces); what a key receives is a sum over queries, so there lanes are keys (received): every number has
// one owner.

namespace annulus::cpu {
namespace {

/// Sums of one block of lanes, each [lanes].
struct TraceBlock {
  float *q, *minus_base;
  float* distance;   ///< query position - position of the piece's first key
  float* threshold;  ///< the smallest score in the row's list; +inf for lanes without a row
  float *entropy, *largest, *sink, *far_sum;
};

struct TraceRoom {
  TraceBlock first;
  Index block_floats;
  float *row, *k, *p, *minus_base;
  Index floats;
};

TraceRoom trace_room(const Shape& shape, float* scratch) {
  Carver carve{scratch};
  TraceRoom room{};
  room.row = carve.take(padded(shape.channels));
  room.k = carve.take((chunk + unit) * padded(shape.channels));
  room.p = carve.take((chunk + unit) * lanes);
  room.minus_base = carve.take(chunk + unit);
  const Index begin = carve.used;
  TraceBlock& block = room.first;
  block.q = carve.take(padded(shape.channels) * lanes);
  block.minus_base = carve.take(lanes);
  block.distance = carve.take(lanes);
  block.threshold = carve.take(lanes);
  block.entropy = carve.take(lanes);
  block.largest = carve.take(lanes);
  block.sink = carve.take(lanes);
  block.far_sum = carve.take(lanes);
  room.block_floats = carve.used - begin;
  room.floats = begin + room.block_floats * blocks_of(shape);
  return room;
}

ANNULUS_INLINE TraceBlock block_at(const TraceRoom& room, Index b) {
  TraceBlock block = room.first;
  const Index by = b * room.block_floats;
  block.q += by, block.minus_base += by, block.distance += by, block.threshold += by;
  block.entropy += by, block.largest += by, block.sink += by, block.far_sum += by;
  return block;
}

ANNULUS_INLINE float* scores_of(const RowTraceItem& item, Index row) {
  return reinterpret_cast<float*>(item.top_score.data + row * item.top_score.pitch);
}

void load_trace_block(const RowTraceItem& item, const Piece& piece, Index row, Index count, float* spare,
                      const TraceBlock& block) {
  pack_lanes(item.q, item.shape.type, row, count, item.shape.channels, spare, block.q);
  const bool ranks = item.top_score.data != nullptr && item.top_count > 0;
  for (Index lane = 0; lane < lanes; ++lane) {
    const bool real = lane < count;
    block.minus_base[lane] = real ? minus_base_of_lse(number_at(item.lse, row + lane)) : -infinity;
    const Index position = piece.lane_at + (row + lane - piece.lane_begin) * piece.stride + item.query_shift;
    block.distance[lane] = static_cast<float>(position - piece.step_at);
    block.threshold[lane] = real && ranks ? scores_of(item, row + lane)[item.top_count - 1] : infinity;
    block.entropy[lane] = block.largest[lane] = block.sink[lane] = block.far_sum[lane] = 0;
  }
}

void store_trace_block(const RowTraceItem& item, Index row, Index count, const TraceBlock& block) {
  for (Index lane = 0; lane < count; ++lane) {
    if (item.entropy.data != nullptr) number_at(item.entropy, row + lane) -= ln_2 * block.entropy[lane];
    if (item.sink_mass.data != nullptr) number_at(item.sink_mass, row + lane) += block.sink[lane];
    if (item.mean_distance.data != nullptr) number_at(item.mean_distance, row + lane) += block.far_sum[lane];
    if (item.max_probability.data == nullptr) continue;
    float& high = number_at(item.max_probability, row + lane);
    if (block.largest[lane] > high) high = block.largest[lane];
  }
}

/// Puts (s, key) into the row's list, sorted by falling score, then rising key, if it belongs there.
void rank_key(const RowTraceItem& item, Index row, float s, Index key) {
  float* scores = scores_of(item, row);
  auto* keys = reinterpret_cast<Index*>(item.top_index.data + row * item.top_index.pitch);
  const auto precedes = [&](Index place) {
    return keys[place] >= 0 && (scores[place] > s || (scores[place] == s && keys[place] < key));
  };
  if (precedes(item.top_count - 1)) return;
  Index place = item.top_count - 1;
  for (; place > 0 && !precedes(place - 1); --place) {
    scores[place] = scores[place - 1];
    keys[place] = keys[place - 1];
  }
  scores[place] = s;
  keys[place] = key;
}

/// One vector of scores at the door of the lists; nearly all are turned away by the first test.
ANNULUS_INLINE void rank(const RowTraceItem& item, const TraceBlock& block, Vec s, IntVec seen, Index row, Index key,
                         int n) {
  const IntVec enters = (s >= load(block.threshold + n * width)) & (s > splat(-infinity)) & seen;
  if (!any(enters)) return;
  for (int i = 0; i < width; ++i) {
    if (enters[i] == 0 || block.threshold[n * width + i] == infinity) continue;
    const Index at = row + n * width + i;
    rank_key(item, at, s[i], key);
    block.threshold[n * width + i] = scores_of(item, at)[item.top_count - 1];
  }
}

struct TraceSums {
  Vec entropy[vectors], largest[vectors], sink[vectors], distance[vectors];
};

/// Everything per query over steps [begin, end) of a strip whose scores stand in p; leaves P there. from: the chunk's
/// first step, counted from the piece's.
template <bool masked, bool distances>
ANNULUS_INLINE void trace_rows(const RowTraceItem& item, const Piece& piece, const TraceRoom& room,
                               const TraceBlock& block, const Strip& strip, Index row, Index from, Steps steps,
                               TraceSums& sums) {
  const Vec c = splat(item.shape.log2_scale), scale = splat(item.shape.scale);
  const bool ranks = item.top_score.data != nullptr && item.top_count > 0;
#pragma GCC unroll 1
  for (Index step = steps.begin; step < steps.end; ++step) {
    const Index behind = (from + step) * piece.stride, key = piece.step_at + behind;
    const bool sink = key < item.sink_tokens;
    const Vec back = splat(static_cast<float>(behind));
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) {
      float* cell = room.p + step * lanes + n * width;
      const IntVec seen = masked ? sees(strip, step, n) : ~IntVec{};
      const Vec s = load(cell), t = s * c + load(block.minus_base + n * width);
      Vec p = exp2(t);
      if (masked) p = keep(seen, p);
      sums.entropy[n] += p * larger(t, splat(-1000.0F));  // 0 log 0 = 0
      sums.largest[n] = larger(p, sums.largest[n]);
      if (distances) {
        const Vec gap = load(block.distance + n * width) - back;
        sums.distance[n] += p * larger(gap, -gap);
      }
      if (sink) sums.sink[n] += p;
      store(cell, p);
      if (ranks) rank(item, block, s * scale, seen, row, key, n);
    }
  }
}

template <bool distances>
[[gnu::noinline]] void trace_strip(const RowTraceItem& item, const Piece& piece, const TraceRoom& room,
                                   const TraceBlock& block, const Strip& strip, Index row, Index from) {
  score_strip({room.k, padded(item.shape.channels), 1}, block.q, item.shape.channels, strip, room.p);
  TraceSums sums{};
  const Steps before{strip.begin, strip.full_begin}, full{strip.full_begin, strip.full_end},
      behind{strip.full_end, strip.end};
  trace_rows<true, distances>(item, piece, room, block, strip, row, from, before, sums);
  trace_rows<false, distances>(item, piece, room, block, strip, row, from, full, sums);
  trace_rows<true, distances>(item, piece, room, block, strip, row, from, behind, sums);
  for (int n = 0; n < vectors; ++n) {
    const int at = n * width;
    store(block.entropy + at, load(block.entropy + at) + sums.entropy[n]);
    store(block.sink + at, load(block.sink + at) + sums.sink[n]);
    store(block.far_sum + at, load(block.far_sum + at) + sums.distance[n]);
    store(block.largest + at, larger(sums.largest[n], load(block.largest + at)));
  }
}

/// Adds the strip's probabilities to the map, one run of keys of the same map block after another.
void map_strip(const RowTraceItem& item, const Piece& piece, const float* p, const Strip& strip, Index row, Index count,
               Index from) {
  for (Index step = strip.begin; step < strip.end;) {
    const Index key_block = (piece.step_at + (from + step) * piece.stride) / item.block_tokens;
    alignas(64) float mass[lanes] = {};
    for (; step < strip.end && (piece.step_at + (from + step) * piece.stride) / item.block_tokens == key_block; ++step)
      for (int n = 0; n < vectors; ++n)
        store(mass + n * width, load(mass + n * width) + load(p + step * lanes + n * width));
    for (Index lane = 0; lane < count; ++lane) {
      const Index query = piece.lane_at + (row + lane - piece.lane_begin) * piece.stride;
      item.mass[query / item.block_tokens * item.key_blocks + key_block] += static_cast<double>(mass[lane]);
    }
  }
}

/// Each piece by itself: its rows are at most a group's.
void row_traces(const RowTraceItem& item, float* scratch) {
  const Shape& shape = item.shape;
  const TraceRoom room = trace_room(shape, scratch);
  for (const Piece* piece = item.group.pieces; piece != item.group.pieces + item.group.piece_count; ++piece) {
    const Index begin = piece->lane_begin, blocks = (piece->lane_end - begin + lanes - 1) / lanes;
    const auto rows_of = [&](Index b) { return least(lanes, piece->lane_end - begin - b * lanes); };
    for (Index b = 0; b < blocks; ++b)
      load_trace_block(item, *piece, begin + b * lanes, rows_of(b), room.row, block_at(room, b));
    const Steps seen = steps_seen(*piece, begin, piece->lane_end);
    for (Index first = seen.begin; first < seen.end; first += chunk) {
      const Index size = least(chunk, seen.end - first);
      pack_rows(item.k, shape.type, first, size, shape.channels, room.k);
      for (Index b = 0; b < blocks; ++b) {
        Strip strip;
        const Index row = begin + b * lanes, from = first - piece->step_begin;
        if (!cut_strip(*piece, row, rows_of(b), first, size, strip)) continue;
        const auto trace = item.mean_distance.data != nullptr ? trace_strip<true> : trace_strip<false>;
        trace(item, *piece, room, block_at(room, b), strip, row, from);
        if (item.mass != nullptr) map_strip(item, *piece, room.p, strip, row, rows_of(b), from);
      }
    }
    for (Index b = 0; b < blocks; ++b) store_trace_block(item, begin + b * lanes, rows_of(b), block_at(room, b));
  }
}

/// sums += P over steps [begin, end) of a strip whose scores stand in p.
template <bool masked>
ANNULUS_INLINE void receive_rows(const TraceRoom& room, const Shape& shape, const Strip& strip, Index begin, Index end,
                                 Vec (&sums)[vectors]) {
  const Vec c = splat(shape.log2_scale);
#pragma GCC unroll 1
  for (Index step = begin; step < end; ++step)
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) {
      const Vec p = exp2(load(room.p + step * lanes + n * width) * c + splat(room.minus_base[step]));
      sums[n] += masked ? keep(sees(strip, step, n), p) : p;
    }
}

/// Adds what the keys in the lanes receive from the queries of the strip.
[[gnu::noinline]] void receive_strip(const Shape& shape, const TraceRoom& room, const TraceBlock& block,
                                     const Strip& strip) {
  score_strip({room.k, padded(shape.channels), 1}, block.q, shape.channels, strip, room.p);
  Vec sums[vectors] = {};
  receive_rows<true>(room, shape, strip, strip.begin, strip.full_begin, sums);
  receive_rows<false>(room, shape, strip, strip.full_begin, strip.full_end, sums);
  receive_rows<true>(room, shape, strip, strip.full_end, strip.end, sums);
  for (int n = 0; n < vectors; ++n) store(block.sink + n * width, load(block.sink + n * width) + sums[n]);
}

void received(const ReceivedItem& item, float* scratch) {
  const Shape& shape = item.shape;
  const TraceRoom room = trace_room(shape, scratch);
  const Group& group = item.group;
  const auto rows_of = [&](Index b) { return least(lanes, group.end - group.begin - b * lanes); };
  const Index blocks = (group.end - group.begin + lanes - 1) / lanes;
  for (Index b = 0; b < blocks; ++b) {
    const TraceBlock block = block_at(room, b);
    pack_lanes(item.k, shape.type, group.begin + b * lanes, rows_of(b), shape.channels, room.row, block.q);
    zero(block.sink, lanes);
    zero(block.far_sum, lanes);  // here: 1 where a tile holds the key
  }
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece) {
    for (Index row = most(group.begin, piece->lane_begin); row < least(group.end, piece->lane_end); ++row)
      block_at(room, (row - group.begin) / lanes).far_sum[(row - group.begin) % lanes] = 1;
    const Steps seen = steps_seen(*piece, group.begin, group.end);
    for (Index from = seen.begin; from < seen.end; from += chunk) {
      const Index size = least(chunk, seen.end - from);
      pack_rows(item.q, shape.type, from, size, shape.channels, room.k);
      for (Index i = 0; i < size; ++i) room.minus_base[i] = minus_base_of_lse(number_at(item.lse, from + i));
      for (Index b = 0; b < blocks; ++b) {
        Strip strip;
        if (cut_strip(*piece, group.begin + b * lanes, rows_of(b), from, size, strip))
          receive_strip(shape, room, block_at(room, b), strip);
      }
    }
  }
  for (Index b = 0; b < blocks; ++b) {
    const TraceBlock block = block_at(room, b);
    add_lanes(block.sink, block.far_sum, group.begin + b * lanes, rows_of(b), 1, item.received);
  }
}

}  // namespace
}  // namespace annulus::cpu

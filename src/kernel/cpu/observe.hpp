#pragma once
#include "kernel/cpu/turns.hpp"

// Traces from S^T = K Q^T again, with the final lse: p = 2^(c S - base), base = lse log2(e). Lanes are queries. What a key
// receives is a sum over queries: every group of rows adds to the same keys, so groups take turns there, as in backward.hpp,
// and walk through their keys from the last chunk to the first.

namespace annulus::cpu {
namespace {

/// Sums of one block of lanes, each [lanes].
struct TraceBlock {
  float *q, *minus_base;
  float* distance;   ///< query position - position of the piece's first key
  float* threshold;  ///< the smallest score in the row's list; +inf for lanes without a row
  float *entropy, *largest, *sink, *far_sum;
};

constexpr Index keys_turned = 16;  ///< at a time, from lanes to sums

template <class Scores>
struct TraceRoom {
  typename Scores::Room scores;
  TraceBlock first;
  Index block_floats;
  float* p;
  float* received;  ///< [step][width]: of the present chunk
  Index floats;
};

template <class Scores>
TraceRoom<Scores> trace_room(const Shape& shape, float* scratch) {
  Carver carve{scratch};
  TraceRoom<Scores> room{};
  room.scores = Scores::room(shape, carve);
  room.p = carve.take((chunk + unit) * lanes);
  room.received = carve.take((chunk + keys_turned) * width);
  const Index begin = carve.used;
  TraceBlock& block = room.first;
  block.q = carve.take(Scores::query_floats(shape));
  block.minus_base = carve.take(lanes);
  block.distance = carve.take(lanes);
  block.threshold = carve.take(lanes);
  block.entropy = carve.take(lanes);
  block.largest = carve.take(lanes);
  block.sink = carve.take(lanes);
  block.far_sum = carve.take(lanes);
  room.block_floats = carve.used - begin;
  room.floats = begin + room.block_floats * Scores::blocks(shape);
  return room;
}

template <class Scores>
ANNULUS_INLINE TraceBlock block_at(const TraceRoom<Scores>& room, Index b) {
  TraceBlock block = room.first;
  const Index by = b * room.block_floats;
  block.q += by, block.minus_base += by, block.distance += by, block.threshold += by;
  block.entropy += by, block.largest += by, block.sink += by, block.far_sum += by;
  return block;
}

/// One block of lanes, whose queries are packed, and one chunk of keys.
struct TracePlace {
  const RowTraceItem& item;
  const Piece& piece;
  Index row, count;  ///< of the lanes
  Index from, size;  ///< of the keys
};

/// Scores from operands as f32.
struct SingleScores {
  struct Room {
    float *row, *k;
  };
  static Room room(const Shape& shape, Carver& carve) {
    return {carve.take(padded(shape.channels)), carve.take((chunk + unit) * padded(shape.channels))};
  }
  static Index query_floats(const Shape& shape) { return padded(shape.channels) * lanes; }
  static Index blocks(const Shape& shape) { return blocks_of(shape); }
  static void begin() {}
  static void end() {}
  static void pack_queries(const RowTraceItem& item, Index row, Index count, const Room& room, float* q) {
    pack_lanes(item.q, item.shape.type, row, count, item.shape.channels, room.row, q);
  }
  static void pack_keys(const RowTraceItem& item, Index from, Index size, const Room& room) {
    pack_rows(item.k, item.shape.type, from, size, item.shape.channels, room.k);
  }
  static void score(const TracePlace& at, const Room& room, const float* q, const Strip& strip, float* s) {
    score_strip({room.k, padded(at.item.shape.channels), 1}, q, at.item.shape.channels, strip, s);
  }
};

ANNULUS_INLINE float* scores_of(const RowTraceItem& item, Index row) {
  return reinterpret_cast<float*>(item.top_score.data + row * item.top_score.pitch);
}

void load_trace_block(const RowTraceItem& item, const Piece& piece, Index row, Index count, const TraceBlock& block) {
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

/// Everything over steps [begin, end) of a strip whose scores stand in p; leaves P there.
template <bool masked, bool distances>
ANNULUS_INLINE void trace_rows(const TracePlace& at, float* from_p, float* received, const TraceBlock& block,
                               const Strip& strip, Steps steps, TraceSums& sums) {
  const RowTraceItem& item = at.item;
  const Vec c = splat(item.shape.log2_scale), scale = splat(item.shape.scale);
  const bool ranks = item.top_score.data != nullptr && item.top_count > 0;
#pragma GCC unroll 1
  for (Index step = steps.begin; step < steps.end; ++step) {
    const Index behind = (at.from - at.piece.step_begin + step) * at.piece.stride, key = at.piece.step_at + behind;
    const bool sink = key < item.sink_tokens;
    const Vec back = splat(static_cast<float>(behind));
    Vec mass = load(received + step * width);
#pragma GCC unroll 3
    for (int n = 0; n < vectors; ++n) {
      float* cell = from_p + step * lanes + n * width;
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
      mass += p;
      store(cell, p);
      if (ranks) rank(item, block, s * scale, seen, at.row, key, n);
    }
    store(received + step * width, mass);
  }
}

/// Adds a strip whose scores stand in p to what its queries have, and to received; leaves P in p.
template <bool distances>
[[gnu::noinline]] void trace_strip(const TracePlace& at, float* p, float* received, const TraceBlock& block,
                                   const Strip& strip) {
  TraceSums sums{};
  const Steps before{strip.begin, strip.full_begin}, full{strip.full_begin, strip.full_end},
      behind{strip.full_end, strip.end};
  trace_rows<true, distances>(at, p, received, block, strip, before, sums);
  trace_rows<false, distances>(at, p, received, block, strip, full, sums);
  trace_rows<true, distances>(at, p, received, block, strip, behind, sums);
  for (int n = 0; n < vectors; ++n) {
    const int lane = n * width;
    store(block.entropy + lane, load(block.entropy + lane) + sums.entropy[n]);
    store(block.sink + lane, load(block.sink + lane) + sums.sink[n]);
    store(block.far_sum + lane, load(block.far_sum + lane) + sums.distance[n]);
    store(block.largest + lane, larger(sums.largest[n], load(block.largest + lane)));
  }
}

/// Adds the strip's probabilities to the map, one run of keys of the same map block after another.
void map_strip(const TracePlace& at, const float* p, const Strip& strip) {
  const RowTraceItem& item = at.item;
  const Piece& piece = at.piece;
  const auto block_of = [&](Index step) {
    return (piece.step_at + (at.from - piece.step_begin + step) * piece.stride) / item.block_tokens;
  };
  for (Index step = strip.begin; step < strip.end;) {
    const Index key_block = block_of(step);
    alignas(64) float mass[lanes] = {};
    for (; step < strip.end && block_of(step) == key_block; ++step)
      for (int n = 0; n < vectors; ++n)
        store(mass + n * width, load(mass + n * width) + load(p + step * lanes + n * width));
    for (Index lane = 0; lane < at.count; ++lane) {
      const Index query = piece.lane_at + (at.row + lane - piece.lane_begin) * piece.stride;
      item.mass[query / item.block_tokens * item.key_blocks + key_block] += static_cast<double>(mass[lane]);
    }
  }
}

/// What the keys have received, by lanes, to the caller's sums. received: of the first of them.
void add_received(const RowTraceItem& item, const float* received, Steps keys) {
  alignas(64) float lane_sums[width * keys_turned];
  for (Index first = keys.begin; first < keys.end; first += keys_turned, received += keys_turned * width) {
    turn<width, keys_turned>(received, width, lane_sums, keys_turned);
    for (Index i = 0; i < least(keys_turned, keys.end - first); ++i) {
      float sum = 0;
      for (Index lane = 0; lane < width; ++lane) sum += lane_sums[lane * keys_turned + i];
      number_at(item.received, first + i) += sum;
    }
  }
}

/// A chunk of keys against all blocks of lanes of a piece.
template <class Scores>
void trace_chunk(const RowTraceItem& item, const Piece& piece, Index from, Index size, const TraceRoom<Scores>& room) {
  Scores::pack_keys(item, from, size, room.scores);
  zero(room.received, chunk * width);
  for (Index row = piece.lane_begin, b = 0; row < piece.lane_end; row += lanes, ++b) {
    const TracePlace at{item, piece, row, least(lanes, piece.lane_end - row), from, size};
    Strip strip;
    if (!cut_strip(piece, row, at.count, from, size, strip)) continue;
    const TraceBlock block = block_at(room, b);
    Scores::score(at, room.scores, block.q, strip, room.p);
    const auto trace = item.mean_distance.data != nullptr ? trace_strip<true> : trace_strip<false>;
    trace(at, room.p, room.received, block, strip);
    if (item.mass != nullptr) map_strip(at, room.p, strip);
  }
}

/// Each piece by itself: its rows are at most a group's.
template <class Scores>
void row_traces(const RowTraceItem& item, float* scratch) {
  const auto room = trace_room<Scores>(item.shape, scratch);
  const bool receives = item.received.data != nullptr;
  const auto seen_by = [](const Piece& piece) { return steps_seen(piece, piece.lane_begin, piece.lane_end); };
  Scores::begin();
  for (Index n = item.group.piece_count - 1; n >= 0; --n) {
    const Piece& piece = item.group.pieces[n];
    const Steps seen = seen_by(piece);
    if (seen.begin >= seen.end) continue;
    Index left = 0;  // pieces to come end here
    for (Index m = 0; m < n; ++m) left = most(left, seen_by(item.group.pieces[m]).end);
    const auto for_each_block = [&](const auto& work) {
      for (Index row = piece.lane_begin, b = 0; row < piece.lane_end; row += lanes, ++b)
        work(row, least(lanes, piece.lane_end - row), block_at(room, b));
    };
    for_each_block([&](Index row, Index count, const TraceBlock& block) {
      Scores::pack_queries(item, row, count, room.scores, block.q);
      load_trace_block(item, piece, row, count, block);
    });
    for (Index from = chunk_of(piece, seen.end - 1); from + chunk > seen.begin; from -= chunk) {
      const Index size = least(chunk, seen.end - from), begin = most(seen.begin, from);
      trace_chunk(item, piece, from, size, room);
      if (!receives) continue;
      await_turn(item.turns, item.head, begin);
      add_received(item, room.received + (begin - from) * width, {begin, from + size});
      end_turn(item.turns, item.head, most(left, from));
    }
    for_each_block(
        [&](Index row, Index count, const TraceBlock& block) { store_trace_block(item, row, count, block); });
  }
  Scores::end();
  if (receives) end_turn(item.turns, item.head, -1);
}

}  // namespace
}  // namespace annulus::cpu

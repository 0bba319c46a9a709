#pragma once
#include "kernel/cpu/tile_unit.hpp"

// Forward with tile products: as forward.hpp, but the units of a chunk, one for each block of lanes, form a pipeline. While
// one is weighed, the scores of the next and the values of the one before go through the tiles.

namespace annulus::cpu {
namespace {

/// How the scores of a unit are made weights.
ANNULUS_INLINE float weight_scale(const Shape& shape) {
  return shape.log2_scale == 0 ? 0x1p-126F : shape.log2_scale;  // so that hidden scores, infinite ones, stay it
}

/// Scores of blocks [begin, end) of the unit into room.scores, and the largest that each lane sees (-inf: none).
template <class Way>
void look(const TileRoom& room, const Shape& shape, const Unit& work, Index begin, Index end, float* largest) {
  Vec high[vectors];
  for (Vec& h : high) h = splat(-infinity);
  const float c = weight_scale(shape);
  const Vec scale = splat(shape.scale);
  for (Index b = begin; b < end; ++b) {
    float* s = room.scores + b * block_steps * lanes;
    run_scores<Way>(room, work, b, s);
    if (!work.whole(b)) hide(work.strip, b, c, s);
    for (Index row = 0; row < block_steps; ++row)
      for (int n = 0; n < vectors; ++n) high[n] = larger(load(s + row * lanes + n * width) * scale, high[n]);
  }
  for (int n = 0; n < vectors; ++n) store(largest + n * width, high[n]);
}

/// Has a lane that sees something in the unit no reference?
bool begins(const Unit& work) {
  const bool partial = !(work.whole(work.first) && work.whole(work.first + work.blocks - 1));
  IntVec none{};
  for (int n = 0; n < vectors; ++n) {
    IntVec lane = load(work.block.top + n * width) == splat(-infinity);
    if (partial) lane &= ~(load(work.strip.lo + n * width) > load(work.strip.hi + n * width));
    none |= lane;
  }
  return any(none);
}

/// References for lanes that have none, from the first scores; from all of them where those do not reach every lane.
template <class Way>
void choose_references(const TileRoom& room, const Shape& shape, const Unit& work) {
  alignas(64) float largest[lanes];
  const Index end = work.first + work.blocks, some = work.first + 2;
  look<Way>(room, shape, work, work.first, some, largest);
  move_references(work.block, shape, largest);
  if (some == end || !begins(work)) return;
  look<Way>(room, shape, work, some, end, largest);
  move_references(work.block, shape, largest);
}

/// A unit again whose sums left the limit.
template <class Way>
[[gnu::noinline]] void weigh_again(const TileRoom& room, const Shape& shape, const Unit& work, float* p,
                                   Vec (&sums)[vectors]) {
  alignas(64) float largest[lanes];
  look<Way>(room, shape, work, work.first, work.first + work.blocks, largest);
  move_references(work.block, shape, largest);
  run_weights<Way>(room, work, weight_scale(shape), p, sums);
}

/// All units of a chunk. before(n, ahead): called before unit n, what to send for during it.
template <class Way, class Before>
void run_units(const TileRoom& room, const Shape& shape, const Unit* units, Index count, const Before& before) {
  if (count == 0) return;
  Step step{.now = nullptr,
            .next = nullptr,
            .before = nullptr,
            .p = room.p[0],
            .p_before = room.p[1],
            .ring = {room.ring, room.ring + block_steps * lanes, room.ring + 2 * block_steps * lanes},
            .c = weight_scale(shape),
            .ahead = {}};
  run_scores<Way>(room, units[0], units[0].first, step.ring[0]);
  run_scores<Way>(room, units[0], units[0].first + 1, step.ring[1]);
  constexpr Index most_unit_blocks = Way::steps / block_steps;
  for (Index n = 0; n < count; ++n) {
    const Unit& work = units[n];
    before(n, step.ahead);
    step.now = &work;
    step.next = n + 1 < count ? &work + 1 : nullptr;
    Vec sums[vectors];
    const bool usual = step.before != nullptr && step.next != nullptr && work.blocks == most_unit_blocks &&
                       step.before->blocks == work.blocks;
    if (usual && room.depth == 2 && room.panels == 2) run_usual_step<Way, 2, 1>(room, step, sums);
    else if (usual && room.depth == 4 && room.panels == 4) run_usual_step<Way, 4, 2>(room, step, sums);
    else run_step<Way>(room, step, sums);
    if (step.before != nullptr) settle(step.before->block, shape);
    IntVec fits = ~IntVec{};
    for (int i = 0; i < vectors; ++i) fits &= load(work.block.sum + i * width) + sums[i] <= splat(sum_limit);
    if (any(~fits)) weigh_again<Way>(room, shape, work, step.p, sums);
    add_to_sum(work.block, sums);
    step.before = &work;
    float* p = step.p;
    step.p = step.p_before, step.p_before = p;
  }
  run_values<Way>(room, *step.before, step.p_before);
  settle(step.before->block, shape);
}

/// The chunk without tiles, for a block of lanes whose numbers, or the chunk's, split badly.
void attend_plainly(const ForwardItem& item, const TileRoom& room, const Piece& piece, Index from, Index size,
                    Index row, Index count, ForwardBlock block) {
  block.q = room.plain_q;
  SingleOperands::pack_queries(item, row, count, room.row, block.q);
  for (Index at = from; at < from + size; at += chunk) {
    const Index some = least(chunk, from + size - at);
    Strip strip;
    if (!cut_strip(piece, row, count, at, some, strip)) continue;
    SingleOperands::pack_chunk(item, at, some, room.plain);
    attend<SingleOperands>(room.plain, block, item.shape, strip);
  }
}

/// A run of keys, packed for all blocks of lanes: a part at a time, while those before it are computed.
struct TileChunk {
  const Piece* piece;           ///< null: there is none
  Index from, size, end;        ///< first row, rows, and where the piece's chunks end
  Index asked = 0, packed = 0;  ///< rows that were sent for, and that are packed
  bool bad = false;             ///< some number splits badly
};

template <class Way>
TileChunk first_chunk(const Group& group, const Piece* piece) {
  for (; piece != group.pieces + group.piece_count; ++piece) {
    const Steps seen = steps_seen(*piece, group.begin, group.end);
    if (seen.begin >= seen.end) continue;
    const Index from = chunk_of(*piece, seen.begin, Way::steps);
    return {.piece = piece, .from = from, .size = least(Way::steps, seen.end - from), .end = seen.end};
  }
  return {.piece = nullptr, .from = 0, .size = 0, .end = 0};
}
template <class Way>
TileChunk chunk_after(const Group& group, const TileChunk& keys) {
  const Index from = keys.from + Way::steps;
  if (from >= keys.end) return first_chunk<Way>(group, keys.piece + 1);
  return {.piece = keys.piece, .from = from, .size = least(Way::steps, keys.end - from), .end = keys.end};
}

/// Packs what was sent for, whole blocks of it, and says what to send for next: part `part` of `parts`.
template <class Way>
void pack_part(const ForwardItem& item, const TileRoom& room, Index part, Index parts, TileChunk& keys, Ahead& ahead) {
  if (keys.piece == nullptr) return;
  using Operands = TileOperands<Way>;
  const Shape& shape = item.shape;
  ahead.rest();
  const Index until =
      keys.asked == keys.size ? round_up(keys.size, word_channels) : keys.asked / word_channels * word_channels;
  const Packing now{keys.from, keys.size, keys.packed, until};
  const IntVec bad =
      Operands::pack_keys(item, now, room, room.next_k) | Operands::pack_values(item, now, room, room.next_v);
  keys.bad |= any(bad);
  keys.packed = until;
  const Index before = keys.asked;
  keys.asked = most(before, keys.size * part / parts);
  ahead = {item.k,
           item.v,
           shape.channels * bytes_of_number(shape.type),
           shape.value_channels * bytes_of_number(shape.type),
           keys.from + before,
           keys.from + keys.asked};
}

/// Packs what is left.
template <class Way>
void pack_rest(const ForwardItem& item, const TileRoom& room, TileChunk& keys) {
  constexpr Index parts = 16;
  Ahead ahead{};
  for (Index part = 1; keys.packed < keys.size; ++part)
    pack_part<Way>(item, room, least(part, parts), parts, keys, ahead);
}

/// As forward of forward.hpp.
template <class Way>
void forward_in_tiles(const ForwardItem& item, float* scratch) {
  using Operands = TileOperands<Way>;
  const Shape& shape = item.shape;
  TileRoom room = tile_room<Way>(shape, scratch);
  const Group& group = item.group;
  const auto rows_of = [&](Index b) { return least(lanes, group.end - group.begin - b * lanes); };
  const auto rows_at = [&](Index b) {
    return Steps{group.begin + b * lanes, least(group.begin + (b + 1) * lanes, group.end)};
  };
  const Index blocks = (group.end - group.begin + lanes - 1) / lanes;
  Unit units[most_blocks];
  begin_tiles();
  for (Index b = 0; b < blocks; ++b) {
    const ForwardBlock block = block_at(room, b);
    prefetch_rows(item.q, shape.type, rows_at(b + 1), shape.channels, 0, 1);
    Operands::pack_queries(item, group.begin + b * lanes, rows_of(b), room, block.q);
    load_block(item, group.begin + b * lanes, rows_of(b), room.row, block);
  }
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece)
    for (Index row = most(group.begin, piece->lane_begin); row < least(group.end, piece->lane_end); ++row)
      block_at(room, (row - group.begin) / lanes).touched[(row - group.begin) % lanes] = 1;
  TileChunk keys = first_chunk<Way>(group, group.pieces);
  pack_rest<Way>(item, room, keys);
  while (keys.piece != nullptr) {
    float *k = room.next_k, *v = room.next_v;
    room.next_k = room.k, room.next_v = room.v, room.k = k, room.v = v;
    TileChunk next = chunk_after<Way>(group, keys);
    Index count = 0;
    for (Index b = 0; b < blocks; ++b) {
      Unit& work = units[count];
      const Index row = group.begin + b * lanes;
      if (!cut_strip(*keys.piece, row, rows_of(b), keys.from, keys.size, work.strip, word_channels)) continue;
      work.block = block_at(room, b);
      if (Way::split && (keys.bad || work.block.q[Way::terms * room.q_term] != 0)) {
        attend_plainly(item, room, *keys.piece, keys.from, keys.size, row, rows_of(b), work.block);
        continue;
      }
      work.first = work.strip.begin / word_channels * 2;
      work.blocks = round_up(work.strip.end, word_channels) / block_steps - work.first;
      if (begins(work)) choose_references<Way>(room, shape, work);
      ++count;
    }
    run_units<Way>(room, shape, units, count,
                   [&](Index n, Ahead& ahead) { pack_part<Way>(item, room, n + 1, count, next, ahead); });
    pack_rest<Way>(item, room, next);
    keys = next;
  }
  end_tiles();
  for (Index b = 0; b < blocks; ++b) {
    prefetch_rows({item.out.data, item.out.pitch}, DType::f32, rows_at(b + 1), shape.value_channels, 0, 1);
    store_block(item, group.begin + b * lanes, rows_of(b), block_at(room, b));
  }
}

template <class Way>
Index tile_group_lanes(const Shape& shape) {
  return lanes * tile_blocks_of<Way>(shape);
}
template <class Way>
Index tile_scratch_floats(const Shape& shape) {
  return tile_room<Way>(shape, nullptr).floats;
}
template <class Way>
constexpr TileWay tile_way = {tile_group_lanes<Way>, tile_scratch_floats<Way>, forward_in_tiles<Way>};

constexpr TileForward tile_forward = {lanes, tile_way<PlainPairs>, tile_way<ThreeTerms>, tile_way<TwoTerms>,
                                      tile_way<TwoExactTerms>};

}  // namespace
}  // namespace annulus::cpu

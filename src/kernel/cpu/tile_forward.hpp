#pragma once
#include "kernel/cpu/tile_observe.hpp"

// Forward with tile products: as forward.hpp, but keys and values come packed, once for all groups of rows and all query
// heads that share them, and the units of work, one for each chunk and block of lanes, form a pipeline. While one is
// weighed, the scores of the next and the values of the one before go through the tiles.

namespace annulus::cpu {
namespace {

/// How the scores of a unit are made weights.
ANNULUS_INLINE float weight_scale(const Shape& shape) {
  return shape.log2_scale == 0 ? 0x1p-126F : shape.log2_scale;  // so that hidden scores, infinite ones, stay it
}

/// The largest scores that the lanes see (-inf: none).
struct Largest {
  Vec high[vectors];

  Largest() {
    for (Vec& h : high) h = splat(-infinity);
  }
  /// Block b, whose scores stand in s; those that are not to be seen vanish there.
  void see(const Shape& shape, const Unit& work, Index b, float* s) {
    if (!work.whole(b)) hide(work.strip, b, weight_scale(shape), s);
    for (Index row = 0; row < block_steps; ++row)
      for (int n = 0; n < vectors; ++n)
        high[n] = larger(load(s + row * lanes + n * width) * splat(shape.scale), high[n]);
  }
  /// Blocks [begin, end), with scores into room.scores.
  template <class Way>
  void see_all(const TileRoom& room, const Shape& shape, const Unit& work, Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      float* const s = room.scores + b * block_steps * lanes;
      run_scores<Way>(room, work, b, s);
      see(shape, work, b, s);
    }
  }
  void move(const Unit& work, const Shape& shape) const {
    alignas(64) float numbers[lanes];
    for (int n = 0; n < vectors; ++n) store(numbers + n * width, high[n]);
    move_references(work.block, shape, numbers);
  }
};

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

/// References for lanes that have none, from the scores of the first two blocks, which are there; from all of them where those
/// do not reach every lane.
template <class Way>
void choose_references(const TileRoom& room, const Shape& shape, const Step& step) {
  const Unit& work = *step.now;
  const Index end = work.first + work.blocks;
  Largest largest;
  for (Index b = 0; b < 2; ++b) largest.see(shape, work, work.first + b, step.ring[b]);
  largest.move(work, shape);
  if (work.blocks == 2 || !begins(work)) return;
  largest.see_all<Way>(room, shape, work, work.first + 2, end);
  largest.move(work, shape);
}

/// A unit again whose sums left the limit.
template <class Way>
[[gnu::noinline]] void weigh_again(const TileRoom& room, const Shape& shape, const Unit& work, float* p,
                                   Vec (&sums)[vectors]) {
  Largest largest;
  largest.see_all<Way>(room, shape, work, work.first, work.first + work.blocks);
  largest.move(work, shape);
  run_weights<Way>(room, work, weight_scale(shape), p, sums);
}

/// The chunk without tiles, for a block of lanes whose numbers, or the chunk's, are not for them.
void attend_plainly(const ForwardItem& item, const TileRoom& room, const Piece& piece, Steps keys, Index row,
                    Index count, ForwardBlock block) {
  block.q = room.plain_q;
  ForwardRoom plain = room.plain;
  ChunkValues values;
  plain.values = &values;
  SingleOperands::pack_queries(item, row, count, room.row, block.q);
  for (Index at = keys.begin; at < keys.end; at += chunk) {
    const Index some = least(chunk, keys.end - at);
    Strip strip;
    if (!cut_strip(piece, row, count, at, some, strip)) continue;
    SingleOperands::pack_chunk(item, at, {0, some}, plain);
    attend<SingleOperands>(plain, block, item.shape, strip);
  }
}

/// The units of a group in order: one packed chunk of keys after another, each for all blocks of lanes.
template <class Way>
class Units {
 public:
  Units(const ForwardItem& item, const TileRoom& room)
      : item_(item),
        room_(room),
        blocks_((item.group.end - item.group.begin + lanes - 1) / lanes),
        piece_(item.group.pieces) {
    enter_piece();
  }
  /// Fills `work`; false where there is no other.
  bool next(Unit& work) {
    while (piece_ != item_.group.pieces + item_.group.piece_count) {
      if (block_ == 0 && from_ < seen_.end) send_for_next();
      for (; from_ < seen_.end && block_ < blocks_; ++block_)
        if (fill(work)) return ++block_, true;
      block_ = 0;
      from_ += Way::steps;
      if (from_ < seen_.end) continue;
      ++piece_;
      enter_piece();
    }
    return false;
  }
  /// The unit that came last, by other means.
  void attend_last_plainly(const Unit& work) const {
    const Index b = block_ - 1;
    attend_plainly(item_, room_, *piece_, keys(), row_of(b), rows_of(b), work.block);
  }

 private:
  void enter_piece() {
    if (piece_ == item_.group.pieces + item_.group.piece_count) return;
    seen_ = steps_seen(*piece_, item_.group.begin, item_.group.end);
    from_ = seen_.begin < seen_.end ? chunk_of(*piece_, seen_.begin, Way::steps) : seen_.end;
  }
  const float* packed(Index from) const {
    return item_.packed + (piece_->chunk + (from - piece_->step_begin) / Way::steps) * packed_floats<Way>(room_);
  }
  void send_for_next() {
    const Index from = from_ + Way::steps, floats = packed_floats<Way>(room_);
    if (from >= seen_.end) return;
    ahead = {packed(from), packed(from) + floats, 1 + floats / 16 / (blocks_ * (Way::steps / block_steps))};
  }
  Steps keys() const { return {from_, least(from_ + Way::steps, seen_.end)}; }
  Index row_of(Index b) const { return item_.group.begin + b * lanes; }
  Index rows_of(Index b) const { return least(lanes, item_.group.end - row_of(b)); }
  bool fill(Unit& work) const {
    const Steps some = keys();
    if (!cut_strip(*piece_, row_of(block_), rows_of(block_), some.begin, some.end - some.begin, work.strip,
                   word_channels))
      return false;
    work.block = block_at(room_, block_);
    work.k = packed(from_);
    work.v = work.k + Way::terms * room_.k_term;
    work.first = work.strip.begin / word_channels * 2;
    work.blocks = round_up(work.strip.end, word_channels) / block_steps - work.first;
    const bool bad = work.v[Way::terms * room_.v_term] != 0;
    if constexpr (Way::split) work.plain = bad || work.block.q[Way::terms * room_.q_term] != 0;
    else work.plain = bad && !work.strip.unhidden(word_channels);
    return true;
  }

  const ForwardItem& item_;
  const TileRoom& room_;
  Index blocks_;
  const Piece* piece_;
  Steps seen_{0, 0};
  Index from_ = 0, block_ = 0;  ///< the next unit: its chunk's first step, and its block of lanes

 public:
  Ahead ahead;  ///< of the chunk after
};

/// Values of the unit before, when nothing else is to be done meanwhile.
template <class Way>
void run_before(const TileRoom& room, const Shape& shape, Step& step) {
  run_values<Way>(room, *step.before, step.p_before);
  settle(step.before->block, shape);
  step.before = nullptr;
}

/// Units from *now on until there are no more or one is not for tiles, which is then *now. Three turn: the one before, this
/// one and the next.
template <class Way>
bool run_pipeline(const TileRoom& room, const Shape& shape, Units<Way>& units, Unit*& now, Unit*& next, Unit*& before) {
  Step step{.now = nullptr,
            .next = nullptr,
            .before = nullptr,
            .p = room.p[0],
            .p_before = room.p[1],
            .ring = {room.ring, room.ring + block_steps * lanes, room.ring + 2 * block_steps * lanes},
            .c = weight_scale(shape)};
  run_scores<Way>(room, *now, now->first, step.ring[0]);
  run_scores<Way>(room, *now, now->first + 1, step.ring[1]);
  for (;;) {
    const bool more = units.next(*next), goes_on = more && !next->plain;
    step.now = now;
    step.next = goes_on ? next : nullptr;
    if (begins(*now)) {
      if (step.before != nullptr && step.before->block.out == now->block.out) run_before<Way>(room, shape, step);
      choose_references<Way>(room, shape, step);
    }
    Vec sums[vectors];
    run_step<Way>(room, step, units.ahead, sums);
    if (step.before != nullptr) settle(step.before->block, shape);
    IntVec fits = ~IntVec{};
    for (int i = 0; i < vectors; ++i) fits &= load(now->block.sum + i * width) + sums[i] <= splat(sum_limit);
    if (any(~fits)) weigh_again<Way>(room, shape, *now, step.p, sums);
    add_to_sum(now->block, sums);
    Unit* const oldest = before;
    before = now, now = next, next = oldest;
    step.before = before;
    float* const p = step.p;
    step.p = step.p_before, step.p_before = p;
    if (goes_on) continue;
    run_before<Way>(room, shape, step);
    return more;
  }
}

/// As forward of forward.hpp, over packed chunks.
template <class Way>
void forward_in_tiles(const ForwardItem& item, float* scratch) {
  using Operands = TileOperands<Way>;
  const Shape& shape = item.shape;
  const TileRoom room = tile_room<Way>(shape, scratch);
  const Group& group = item.group;
  const auto rows_of = [&](Index b) { return least(lanes, group.end - group.begin - b * lanes); };
  const Index blocks = (group.end - group.begin + lanes - 1) / lanes;
  for (Index b = 0; b < blocks; ++b) {
    const ForwardBlock block = block_at(room, b);
    Operands::pack_queries(item, group.begin + b * lanes, rows_of(b), room, block.q);
    load_block(item, group.begin + b * lanes, rows_of(b), room.row, block);
  }
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece)
    for (Index row = most(group.begin, piece->lane_begin); row < least(group.end, piece->lane_end); ++row)
      block_at(room, (row - group.begin) / lanes).touched[(row - group.begin) % lanes] = 1;
  begin_tiles();
  Units<Way> units(item, room);
  Unit three[3];
  Unit *now = three, *next = three + 1, *before = three + 2;
  for (bool more = units.next(*now); more;) {
    if (now->plain) {
      units.attend_last_plainly(*now);
      more = units.next(*now);
    } else {
      more = run_pipeline<Way>(room, shape, units, now, next, before);
    }
  }
  end_tiles();
  for (Index b = 0; b < blocks; ++b) store_block(item, group.begin + b * lanes, rows_of(b), block_at(room, b));
}

/// Packs one chunk of keys for every block of lanes that will meet it.
template <class Way>
void pack_in_tiles(const PackItem& item, float* scratch) {
  using Operands = TileOperands<Way>;
  const Shape& shape = item.shape;
  const TileRoom room = tile_room<Way>(shape, scratch);
  float* const v = item.to + Way::terms * room.k_term;
  constexpr Index distance = 2 * word_channels, portion = 8;  // rows: sent for evenly, well before they are wanted
  const auto send_for = [&](Index begin, Index end) {
    const Steps rows{item.from + begin, item.from + least(end, item.size)};
    prefetch_rows(item.k, shape.type, rows, shape.channels, 0, 1);
    prefetch_rows(item.v, shape.type, rows, shape.value_channels, 0, 1);
  };
  IntVec bad{};
  send_for(0, distance);
  for (Index step = 0; step < item.size; step += word_channels) {
    for (Index at = step; at < step + word_channels; at += portion) {
      send_for(at + distance, at + distance + portion);
      bad |= Operands::pack_keys(item, {item.from, item.size, at, at + portion}, room, item.to);
    }
    bad |= Operands::pack_values(item, {item.from, item.size, step, step + word_channels}, room, v);
  }
  v[Way::terms * room.v_term] = any(bad) ? 1.0F : 0.0F;
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
ChunkForm tile_chunks(const Shape& shape) {
  return {Way::steps, packed_floats<Way>(tile_room<Way>(shape, nullptr))};
}
template <class Way>
constexpr TileWay tile_way = {tile_group_lanes<Way>,  tile_scratch_floats<Way>,   tile_chunks<Way>,
                              pack_in_tiles<Way>,     forward_in_tiles<Way>,      tile_trace_lanes<Way>,
                              tile_trace_floats<Way>, row_traces<TileScores<Way>>};

constexpr TileForward tile_forward = {lanes, tile_way<PlainPairs>, tile_way<ThreeTerms>, tile_way<TwoTerms>,
                                      tile_way<TwoExactTerms>};

}  // namespace
}  // namespace annulus::cpu

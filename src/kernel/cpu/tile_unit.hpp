#pragma once
#include "kernel/cpu/tile_exp2.hpp"
#include "kernel/cpu/tile_room.hpp"

// A unit of work, the scores of 32 queries and up to 256 keys, and its parts, in sizes that can be interleaved:
//   S^T = K Q^T    left K [16 keys][32 channels], right Q^T [32 channels][width lanes], for each of two vectors of lanes
//   O^T = V^T P^T  left V^T [16 channels][32 keys], right P^T [32 keys][width lanes], for two left and two right ones
// The sums of O^T are in tiles 0 to 3, those of S^T in 4 and 5; factors pass through 6 and 7. Two pairs of sums in turn: one
// is stored while the other grows.

namespace annulus::cpu {
namespace {

static_assert(vectors == 2, "a unit holds two tiles of lanes");

struct Unit {
  ForwardBlock block;
  const float *k, *v;  ///< of its chunk
  Strip strip;
  Index first, blocks;  ///< blocks of 16 steps, an even number of them
  bool plain;           ///< not for tiles: its numbers split badly, or it hides values that are not finite

  bool whole(Index b) const { return b * block_steps >= strip.full_begin && (b + 1) * block_steps <= strip.full_end; }
};

template <class Way>
constexpr int score_products = 2 * static_cast<int>(sizeof(Way::scores) / sizeof(TermPair));
template <class Way>
constexpr int value_products = 4 * static_cast<int>(sizeof(Way::values) / sizeof(TermPair));

/// Makes P^T of the scores s of one block of keys: words of terms at p, added to sums. In eight parts, two keys each, spread
/// over the products that are issued meanwhile.
template <class Way>
struct Weighing {
  float *s, *p;
  Index p_term;
  float c;
  Vec minus_base[vectors], sums[vectors];
  Index parts_done = 0;

  ANNULUS_INLINE void part(Index n) {
    const float* from = s + 2 * n * lanes;
    float* to = p + n * lanes;
    for (int i = 0; i < vectors; ++i) {
      const Vec a = tile_exp2<Way::exact_powers>(load(from + i * width) * splat(c) + minus_base[i]);
      const Vec b = tile_exp2<Way::exact_powers>(load(from + lanes + i * width) * splat(c) + minus_base[i]);
      sums[i] += a + b;
      store_terms<Way::terms>(a, b, to + i * width, p_term);
    }
  }
  /// Called after product `at` of `all`. known: these numbers, to the compiler.
  template <bool known>
  ANNULUS_INLINE void after(Index at, Index all) {
    if constexpr (known)
      for (Index n = at * 8 / all; n < (at + 1) * 8 / all; ++n) part(n);
    else
      for (; parts_done < 8 && parts_done * all < (at + 1) * 8; ++parts_done) part(parts_done);
  }
  ANNULUS_INLINE void rest() {
    for (; parts_done < 8; ++parts_done) part(parts_done);
  }
};
/// Nothing to do between products.
struct Idle {
  template <bool known>
  ANNULUS_INLINE void after(Index, Index) {}
};

/// S^T += K Q^T of one block of keys over one tile of channels. at: number of the first product.
template <class Way, bool known, int n = 0, class Between>
ANNULUS_INLINE void add_scores(const TileRoom& room, const float* k, const float* q, Index at, Index all,
                               Between& between) {
  if constexpr (2 * n < score_products<Way>) {
    constexpr TermPair terms = Way::scores[n];
    const float* right = q + terms.right * room.q_term;
    if constexpr (n == 0 || terms.left != Way::scores[n == 0 ? 0 : n - 1].left)
      tile_stream<6, tile_depth>(k + terms.left * room.k_term, tile_depth);
    tile_load<7>(right, lanes);
    tile_multiply<4, 6, 7>();
    between.template after<known>(at + 2 * n, all);
    tile_load<7>(right + width, lanes);
    tile_multiply<5, 6, 7>();
    between.template after<known>(at + 2 * n + 1, all);
    add_scores<Way, known, n + 1>(room, k, q, at, all, between);
  }
}

template <class Way, int depth, int d = 0, class Between>
ANNULUS_INLINE void add_all_scores(const TileRoom& room, const float* k, const float* q, Index all, Between& between) {
  if constexpr (d < depth) {
    add_scores<Way, true>(room, k + d * tile_words, q + d * tile_depth * lanes, score_products<Way> * d, all, between);
    add_all_scores<Way, depth, d + 1>(room, k, q, all, between);
  }
}

ANNULUS_INLINE void store_scores(float* to) {
  tile_store<4>(to, lanes);
  tile_store<5>(to + width, lanes);
}

/// The sums of one panel of 32 value channels.
template <class Way>
ANNULUS_INLINE void begin_values(const float* out) {
  if constexpr (Way::fresh_sums) {
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  } else {
    tile_load<0>(out, lanes);
    tile_load<1>(out + width, lanes);
    tile_load<2>(out + tile_rows * lanes, lanes);
    tile_load<3>(out + tile_rows * lanes + width, lanes);
  }
}
template <class Way>
ANNULUS_INLINE void end_values(const TileRoom& room, float* out) {
  float* to = Way::fresh_sums ? room.fresh : out;
  tile_store<0>(to, lanes);
  tile_store<1>(to + width, lanes);
  tile_store<2>(to + tile_rows * lanes, lanes);
  tile_store<3>(to + tile_rows * lanes + width, lanes);
  if constexpr (Way::fresh_sums)
    for (Index cell = 0; cell < word_channels * lanes; cell += width)
      store(out + cell, load(out + cell) + load(room.fresh + cell));
}

/// O^T += V^T P^T of one panel over 32 keys. scores: where to store S^T in the middle of the last products, or null.
template <class Way, bool known, int n = 0, class Between>
ANNULUS_INLINE void add_values(const TileRoom& room, const float* v, const float* p, Index at, Index all,
                               Between& between, float* scores) {
  constexpr int pairs = value_products<Way> / 4;
  if constexpr (n < pairs) {
    constexpr TermPair terms = Way::values[n];
    const float *left = v + terms.left * room.v_term, *right = p + terms.right * room.p_term;
    tile_stream<6, tile_depth>(left, tile_depth);
    tile_load<7>(right, lanes);
    tile_multiply<0, 6, 7>();
    between.template after<known>(at + 4 * n, all);
    tile_load<7>(right + width, lanes);
    tile_multiply<1, 6, 7>();
    between.template after<known>(at + 4 * n + 1, all);
    if (n + 1 == pairs && scores != nullptr) tile_store<4>(scores, lanes);
    tile_stream<6, tile_depth>(left + tile_words, tile_depth);
    tile_multiply<3, 6, 7>();
    between.template after<known>(at + 4 * n + 2, all);
    if (n + 1 == pairs && scores != nullptr) tile_store<5>(scores + width, lanes);
    tile_load<7>(right, lanes);
    tile_multiply<2, 6, 7>();
    between.template after<known>(at + 4 * n + 3, all);
    add_values<Way, known, n + 1>(room, v, p, at, all, between, scores);
  }
}

/// The way of a unit's values through the panels, 32 keys at a time.
template <class Way>
struct Values {
  static constexpr Index panel_words = Way::steps / word_channels * 2 * tile_words;
  const TileRoom* room;
  const float *v, *p;  ///< of the unit's first keys
  float* out;          ///< of the panel
  Index keys, key = 0;

  Values(const TileRoom& in, const Unit& work, const float* weights)
      : room(&in),
        v(work.v + work.first * tile_words),
        p(weights + work.first * tile_depth / 2 * lanes),
        out(work.block.out),
        keys(work.blocks / 2) {}
  template <bool known, class Between>
  ANNULUS_INLINE void next(Index at, Index all, Between& between, float* scores) {
    if (key == 0) begin_values<Way>(out);
    add_values<Way, known>(*room, v + key * 2 * tile_words, p + key * tile_depth * lanes, at, all, between, scores);
    if (++key < keys) return;
    end_values<Way>(*room, out);
    key = 0, v += panel_words, out += word_channels * lanes;
  }
};

template <class Way, int count, int n = 0, class Between>
ANNULUS_INLINE void add_known_values(Values<Way>& values, Index at, Index all, Between& between, float* scores) {
  if constexpr (n < count) {
    values.template next<true>(at + value_products<Way> * n, all, between, n + 1 == count ? scores : nullptr);
    add_known_values<Way, count, n + 1>(values, at, all, between, scores);
  }
}

/// Scores of block b where a lane does not see the step: what 2^(c s) takes for 0.
void hide(const Strip& strip, Index b, float c, float* s) {
  const Vec none = splat(c < 0 ? infinity : -infinity);
  for (Index row = 0; row < block_steps; ++row)
    for (int n = 0; n < vectors; ++n) {
      float* cell = s + row * lanes + n * width;
      store(cell, sees(strip, b * block_steps + row, n) ? load(cell) : none);
    }
}

/// Words of the next chunk that are sent for while a unit is computed, few at a time: they come from afar and keep the
/// buffers busy through which everything else passes.
struct Ahead {
  const float *at = nullptr, *end = nullptr;
  Index share = 0;  ///< lines at a time

  ANNULUS_INLINE void some() {
    for (Index line = 0; line < share && at < end; ++line, at += 16) __builtin_prefetch(at, 0, 2);
  }
};

/// What one step of the pipeline does: P of `now` from scores in the ring, scores of what comes two blocks later into the
/// ring, and the values of the unit before.
struct Step {
  const Unit *now, *next, *before;  ///< next, before: or null
  float *p, *p_before;
  float* ring[3];  ///< scores of the blocks in turn: the first is of now's first block
  float c;
};

/// A step while it is under way.
template <class Way>
struct Progress {
  Weighing<Way> weighing;
  Values<Way> values;
  Index values_left;     ///< steps of 32 keys and 32 channels
  float *waits, *fills;  ///< scores: of the block after, and room for those of the one after that
  Index b = 0;           ///< the block that is weighed now

  Progress(const TileRoom& room, const Step& step)
      : weighing{step.ring[0],
                 step.p + step.now->first * block_steps / 2 * lanes,
                 room.p_term,
                 step.c,
                 {load(step.now->block.minus_base), load(step.now->block.minus_base + width)},
                 {Vec{}, Vec{}}},
        values(room, step.before == nullptr ? *step.now : *step.before, step.p_before),
        values_left(step.before == nullptr ? 0 : values.keys * room.panels),
        waits(step.ring[1]),
        fills(step.ring[2]) {}

  ANNULUS_INLINE void turn() {
    weighing.p += block_steps / 2 * lanes;
    float* read = weighing.s;
    weighing.s = waits, waits = fills, fills = read;
  }
};

/// The first `count` blocks of a step, as most blocks are: beside the weights of each there are scores, over `depth` tiles of
/// channels, and `panels` steps of values. whole: all blocks of a whole unit, a number that the compiler then knows.
template <class Way, int depth, int panels, bool whole>
[[gnu::noinline]] void run_usual_blocks(const TileRoom& room, const Step& step, Index count, Progress<Way>& after,
                                        Ahead& later) {
  constexpr Index behind = score_products<Way> * depth, all = behind + value_products<Way> * panels;
  const Unit &now = *step.now, *next = step.next;
  const Index first = whole ? 0 : now.first, blocks = whole ? Way::steps / block_steps : now.blocks;
  if (whole) count = blocks;
  Ahead ahead = later;
  Progress<Way> progress(room, step);
  for (Index b = 0; b < count; ++b) {
    if (!now.whole(first + b)) hide(now.strip, first + b, step.c, progress.weighing.s);
    ahead.some();
    const bool inside = b + 2 < blocks;
    const float* k = inside ? now.k + (first + b + 2) * depth * tile_words
                            : next->k + (next->first + b + 2 - blocks) * depth * tile_words;
    tile_zero<4>(), tile_zero<5>();
    add_all_scores<Way, depth>(room, k, inside ? now.block.q : next->block.q, all, progress.weighing);
    add_known_values<Way, panels>(progress.values, behind, all, progress.weighing, progress.fills);
    progress.turn();
  }
  progress.b = count;
  progress.values_left -= count * panels;
  after = progress;
  later.at = ahead.at;
}

/// The blocks that are like that, first in a step of these sizes.
template <class Way, int depth, int panels>
ANNULUS_INLINE void run_usual(const TileRoom& room, const Step& step, Progress<Way>& progress, Ahead& ahead) {
  constexpr Index most_unit_blocks = Way::steps / block_steps;
  const Index with_scores = step.now->blocks - (step.next == nullptr ? 2 : 0),
              count = least(with_scores, progress.values_left / panels);
  if (count == most_unit_blocks) run_usual_blocks<Way, depth, panels, true>(room, step, count, progress, ahead);
  else if (count > 0) run_usual_blocks<Way, depth, panels, false>(room, step, count, progress, ahead);
}

/// The other blocks, and what is left of the values.
template <class Way>
[[gnu::noinline]] void run_other_blocks(const TileRoom& room, const Step& step, Progress<Way>& progress, Ahead& ahead) {
  const Unit& now = *step.now;
  Weighing<Way>& weighing = progress.weighing;
  for (; progress.b < now.blocks; progress.turn(), ++progress.b) {
    const Index b = progress.b, share = progress.values_left / (now.blocks - b);
    ahead.some();
    if (!now.whole(now.first + b)) hide(now.strip, now.first + b, step.c, weighing.s);
    const Unit* source = b + 2 < now.blocks ? &now : step.next;
    const Index behind = source == nullptr ? 0 : score_products<Way> * room.depth,
                all = behind + value_products<Way> * share;
    weighing.parts_done = 0;
    if (source != nullptr) {
      const Index block = source->first + (source == &now ? b + 2 : b + 2 - now.blocks);
      const float *k = source->k + block * room.depth * tile_words, *q = source->block.q;
      tile_zero<4>(), tile_zero<5>();
      for (Index d = 0; d < room.depth; ++d)
        add_scores<Way, false>(room, k + d * tile_words, q + d * tile_depth * lanes, score_products<Way> * d, all,
                               weighing);
    }
    for (Index n = 0; n < share; ++n)
      progress.values.template next<false>(behind + n * value_products<Way>, all, weighing, nullptr);
    progress.values_left -= share;
    weighing.rest();
    if (source != nullptr) store_scores(progress.fills);
  }
  Idle idle;
  for (; progress.values_left > 0; --progress.values_left) progress.values.template next<false>(0, 0, idle, nullptr);
}

/// One step of the pipeline. total: of the weights of now, by lanes.
template <class Way>
ANNULUS_INLINE void run_step(const TileRoom& room, Step& step, Ahead& ahead, Vec (&total)[vectors]) {
  Progress<Way> progress(room, step);
  if (room.depth == 2 && room.panels == 2) run_usual<Way, 2, 1>(room, step, progress, ahead);
  else if (room.depth == 4 && room.panels == 4) run_usual<Way, 4, 2>(room, step, progress, ahead);
  if (progress.b < step.now->blocks || progress.values_left > 0) run_other_blocks<Way>(room, step, progress, ahead);
  step.ring[0] = progress.weighing.s, step.ring[1] = progress.waits, step.ring[2] = progress.fills;
  for (int n = 0; n < vectors; ++n) total[n] = progress.weighing.sums[n];
}

/// The values of a unit by themselves.
template <class Way>
[[gnu::noinline]] void run_values(const TileRoom& room, const Unit& work, const float* p) {
  Values<Way> values(room, work, p);
  Idle idle;
  for (Index n = 0; n < values.keys * room.panels; ++n) values.template next<false>(0, 0, idle, nullptr);
}

/// The scores of one block of keys by themselves.
template <class Way>
[[gnu::noinline]] void run_scores(const TileRoom& room, const float* k, const float* q, float* s) {
  Idle idle;
  tile_zero<4>(), tile_zero<5>();
  for (Index d = 0; d < room.depth; ++d)
    add_scores<Way, false>(room, k + d * tile_words, q + d * tile_depth * lanes, 0, 0, idle);
  store_scores(s);
}
template <class Way>
void run_scores(const TileRoom& room, const Unit& work, Index b, float* s) {
  run_scores<Way>(room, work.k + b * room.depth * tile_words, work.block.q, s);
}

/// P of a unit whose scores stand in room.scores.
template <class Way>
[[gnu::noinline]] void run_weights(const TileRoom& room, const Unit& work, float c, float* p, Vec (&total)[vectors]) {
  Weighing<Way> weighing{
      nullptr,       nullptr, room.p_term, c, {load(work.block.minus_base), load(work.block.minus_base + width)},
      {Vec{}, Vec{}}};
  for (Index b = work.first; b < work.first + work.blocks; ++b) {
    weighing.s = room.scores + b * block_steps * lanes;
    weighing.p = p + b * block_steps / 2 * lanes;
    weighing.parts_done = 0;
    weighing.rest();
  }
  for (int n = 0; n < vectors; ++n) total[n] = weighing.sums[n];
}

}  // namespace
}  // namespace annulus::cpu

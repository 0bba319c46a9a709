#pragma once
#include "kernel/cpu/hidden_values.hpp"

// What forward knows of a block of lanes, from the rows it is loaded from to those it is stored in (forward.hpp).

namespace annulus::cpu {
namespace {

/// Steps behind a chunk that products of whole tiles may write.
constexpr Index overhang = 32;

/// The state of one block of lanes, all [.][lanes].
struct ForwardBlock {
  float* q;           ///< [channels]
  float* out;         ///< [padded(value_channels)]: of the last strips
  float* total;       ///< the same, of all strips before, once there are some
  float* top;         ///< natural logarithm; -inf: no score yet
  float* minus_base;  ///< -top log2(e) as one f32, 0 while top is -inf. Kept in memory so that no compiler re-derives
                      ///< it with another rounding: the same top must always mean the same base, across calls too
  float* sum;
  float* sum_rest;  ///< what rounding took from sum
  float* touched;   ///< 1 where a tile holds the row
  float* strips;    ///< [2]: how many are in out, and 1 if there are some in total
};

/// Room for what a block knows of every lane, whatever the layout of its q and sums.
ANNULUS_INLINE void take_statistics(Carver& carve, ForwardBlock& block) {
  for (float** numbers : {&block.top, &block.minus_base, &block.sum, &block.sum_rest, &block.touched})
    *numbers = carve.take(lanes);
  block.strips = carve.take(2);
}

struct ForwardRoom {
  ForwardBlock first;
  Index block_floats;  ///< from block to block, for every member alike
  float *row, *k, *panels, *p;
  ChunkValues* values;  ///< of the chunk that is packed
  Index floats;
};

ForwardRoom forward_room(const Shape& shape, Index blocks, float* scratch) {
  Carver carve{scratch};
  ForwardRoom room{};
  const Index wide = most(padded(shape.channels), padded(shape.value_channels));
  room.row = carve.take(wide);
  room.k = carve.take((chunk + overhang) * round_up(shape.channels, 16));
  room.panels = carve.take(most(panel_floats(shape.value_channels), round_up(shape.value_channels, 16) * chunk / 2));
  room.p = carve.take((chunk + overhang) * lanes);
  const Index begin = carve.used;
  room.first.q = carve.take(round_up(shape.channels, 16) * lanes);
  room.first.out = carve.take(round_up(shape.value_channels, 16) * lanes);
  room.first.total = carve.take(padded(shape.value_channels) * lanes);
  take_statistics(carve, room.first);
  room.block_floats = carve.used - begin;
  room.floats = begin + room.block_floats * blocks;
  return room;
}
ANNULUS_INLINE ForwardRoom forward_room(const Shape& shape, float* scratch) {
  return forward_room(shape, blocks_of(shape), scratch);
}

ANNULUS_INLINE ForwardBlock block_at(const ForwardRoom& room, Index b) {
  ForwardBlock block = room.first;
  const Index by = b * room.block_floats;
  block.q += by, block.out += by, block.total += by, block.top += by, block.minus_base += by;
  block.sum += by, block.sum_rest += by, block.touched += by, block.strips += by;
  return block;
}

ANNULUS_INLINE float minus_base_of(float top) { return top == -infinity ? 0.0F : -(top * log2_e); }

/// All but the queries. Sends for the results of the next block's rows, which have most likely met keys where these have: no
/// processor guesses where rows of one head lie.
void load_block(const ForwardItem& item, Index row, Index count, float* spare, const ForwardBlock& block) {
  const Index values = item.shape.value_channels;
  zero(block.out, padded(values) * lanes);
  block.strips[0] = 0;
  for (Index lane = 0; lane < lanes; ++lane) {
    block.top[lane] = lane < count ? number_at(item.top, row + lane) : -infinity;
    block.sum[lane] = lane < count ? number_at(item.sum, row + lane) : 0.0F;
  }
  IntVec met_some{};
  for (int n = 0; n < vectors; ++n) {
    const Vec top = load(block.top + n * width);
    const IntVec met = ~(top == splat(-infinity));
    met_some |= met;
    store(block.minus_base + n * width, keep(met, -(top * splat(log2_e))));
    store(block.sum_rest + n * width, Vec{});
    store(block.touched + n * width, Vec{});
  }
  for (Index lane = count; lane < lanes; ++lane) block.top[lane] = 0;
  const bool fresh = !any(met_some);
  block.strips[1] = fresh ? 0 : 1;
  if (fresh) return;  // rows that have met no score are zeros
  const Steps later{row + lanes, least(row + 2 * lanes, item.group.end)};
  prefetch_rows({item.out.data, item.out.pitch}, DType::f32, later, values, 0, 1);
  pack_lanes({item.out.data, item.out.pitch}, DType::f32, row, count, values, spare, block.total);
  zero(block.total + values * lanes, (padded(values) - values) * lanes);
  for (int n = 0; n < vectors; ++n) {  // what such rows hold has no meaning
    const IntVec met = ~(load(block.top + n * width) == splat(-infinity));
    for (Index c = 0; c < values; ++c) {
      float* const cell = block.total + c * lanes + n * width;
      store(cell, keep(met, load(cell)));
    }
  }
}

ANNULUS_INLINE Vec all_of(const ForwardBlock& block, Index cell) {
  const Vec out = load(block.out + cell);
  return block.strips[1] == 0 ? out : load(block.total + cell) + out;
}

/// How a vector of lanes is normalised on its way out, where results are final.
struct Closing {
  bool last;
  Vec sum, inverse;
};

/// sum: the whole one, and no longer two; top: lse, where results are final. Nothing seen gives 0 and -inf; a sum that is not a
/// number must show.
ANNULUS_INLINE Closing close_sums(const ForwardItem& item, const ForwardBlock& block, Index first) {
  const Vec sum = load(block.sum + first) + load(block.sum_rest + first);
  const IntVec some = ~(sum == Vec{});
  store(block.sum + first, sum);
  if (item.last) store(block.top + first, choose(some, load(block.top + first) + log(sum), splat(-infinity)));
  return {item.last, sum, keep(some, splat(1.0F) / sum)};
}

/// x / sum, rounded as a division is, which takes longer.
ANNULUS_INLINE Vec closed(const Closing& by, Vec x) {
  if (!by.last) return x;
#if defined(__FMA__)
  const Vec about = x * by.inverse, rest = x - about * by.sum;
  return about + keep(rest == rest, rest) * by.inverse;  // no rest where x is infinite
#else
  return keep(~(by.sum == Vec{}), x / by.sum);
#endif
}

/// Sixteen channels of `width` lanes from lane `first` on, back in their rows; sends for those of the next block.
ANNULUS_INLINE void store_lanes(const ForwardItem& item, Index row, Index first, Index c, const ForwardBlock& block,
                                const Closing& closing) {
  alignas(64) float sums[16 * width];
  std::byte* const to = item.out.data + (row + first) * item.out.pitch + c * 4;
  const bool later = row + first + lanes + width <= item.group.end;
  for (Index i = 0; i < 16; ++i) store(sums + i * width, closed(closing, all_of(block, (c + i) * lanes + first)));
  if (later)
    for (Index i = 0; i < width; ++i) __builtin_prefetch(to + (lanes + i) * item.out.pitch, 1);
  turn<width, 16>(sums, width, reinterpret_cast<float*>(to), item.out.pitch / 4);
}

void store_block(const ForwardItem& item, Index row, Index count, const ForwardBlock& block) {
  const Index values = item.shape.value_channels;
  for (Index first = 0; first < count; first += width) {
    const Closing closing = close_sums(item, block, first);
    bool all = first + width <= count && item.out.pitch % 4 == 0;
    for (Index lane = first; lane < least(first + width, count); ++lane) all &= item.last || block.touched[lane] != 0;
    Index in_tiles = 0;
    if (all)
      for (; in_tiles + 16 <= values; in_tiles += 16) store_lanes(item, row, first, in_tiles, block, closing);
    for (Index lane = first; lane < least(first + width, count); ++lane) {
      if (!item.last && block.touched[lane] == 0) continue;
      auto* out = reinterpret_cast<float*>(item.out.data + (row + lane) * item.out.pitch);
      const float sum = block.sum[lane];
      for (Index c = in_tiles; c < values; ++c) {
        const Index cell = c * lanes + lane;
        const float x = block.strips[1] == 0 ? block.out[cell] : block.total[cell] + block.out[cell];
        out[c] = !item.last ? x : sum == 0 ? 0 : x / sum;
      }
      number_at(item.top, row + lane) = block.top[lane];
      if (!item.last) number_at(item.sum, row + lane) = sum;
    }
  }
}

}  // namespace
}  // namespace annulus::cpu

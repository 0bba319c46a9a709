#pragma once
#include "kernel/cpu/pair_words.hpp"
#include "kernel/cpu/tiles.hpp"

// Forward on bf16 inputs with tile products (tiles.hpp):
//   S^T = K Q^T   left K [16 keys][16 words of channels], right Q^T [16 words][width lanes]
//   O^T = V^T P^T left V^T [16 channels][16 words of keys], right P^T [16 words][width lanes]
// Two left factors meet the `vectors` right factors of all lanes: six sums, one register for each side.

namespace annulus::cpu {
namespace {

ANNULUS_INLINE Index whole_tiles(Index n) { return round_up(n, tile_rows); }

/// sum[m][n] += left[m][.] right[.][n] for `rows` x vectors tiles over `depth` words, a multiple of 16. left: tile m at
/// left + m * left_next, its next words left_step further; right: rows of `lanes` words; sums: rows of `lanes` words, the
/// tiles 16 rows apart; fresh: they begin at 0, else with what is there.
struct TileProduct {
  const float* left;
  Index left_pitch, left_next, left_step;
  const float* right;
  Index depth;
  float* sum;
};

template <int rows, bool fresh, int tile = 0>
ANNULUS_INLINE void begin_sums(const TileProduct& p) {
  if constexpr (tile < rows * vectors) {
    if constexpr (fresh) tile_zero<tile>();
    else tile_load<tile>(p.sum + tile / vectors * tile_rows * lanes + tile % vectors * width, lanes);
    begin_sums<rows, fresh, tile + 1>(p);
  }
}

template <int rows, int tile = 0>
ANNULUS_INLINE void store_sums(const TileProduct& p) {
  if constexpr (tile < rows * vectors) {
    tile_store<tile>(p.sum + tile / vectors * tile_rows * lanes + tile % vectors * width, lanes);
    store_sums<rows, tile + 1>(p);
  }
}

/// One column of tiles after another: its right factor is loaded once, the left ones again.
template <int rows, int tile = 0>
ANNULUS_INLINE void add_products(const TileProduct& p, const float* left, const float* right) {
  if constexpr (tile < rows * vectors) {
    constexpr int m = tile % rows, n = tile / rows;
    if constexpr (m == 0) tile_load<7>(right + n * width, lanes);
    tile_load<6, tile_depth>(left + m * p.left_next, p.left_pitch);
    tile_multiply<m * vectors + n, 6, 7>();
    add_products<rows, tile + 1>(p, left, right);
  }
}

template <int rows, bool fresh>
ANNULUS_INLINE void multiply_tiles(const TileProduct& p) {
  static_assert(rows * vectors <= 6);
  begin_sums<rows, fresh>(p);
  const float *left = p.left, *right = p.right;
  for (Index word = 0; word < p.depth; word += tile_depth, left += p.left_step, right += tile_depth * lanes)
    add_products<rows>(p, left, right);
  store_sums<rows>(p);
}

/// Words of a tile of V^T, and from one panel of 16 channels to the next.
constexpr Index value_tile = tile_rows * tile_depth, value_panel = chunk / 2 / tile_depth * value_tile;

struct TileOperands {
  static void pack_queries(const ForwardItem& item, Index row, Index count, float* spare, float* q) {
    const Index words = words_of(item.shape.channels);
    pack_query_words(item, row, count, spare, q);
    zero(q + words * lanes, (whole_tiles(words) - words) * lanes);
  }

  static void pack_chunk(const ForwardItem& item, Index from, Index size, const ForwardRoom& room) {
    const Index words = words_of(item.shape.channels), pitch = whole_tiles(words);
    for (Index row = 0; row < size; ++row) {
      copy_row(item.k, from + row, item.shape.channels, room.k + row * pitch);
      zero(room.k + row * pitch + words, pitch - words);
    }
    const Index values = item.shape.value_channels;
    if (size < chunk || values % tile_rows != 0) zero(room.panels, whole_tiles(values) / tile_rows * value_panel);
    for (Index row = 0; row < size; row += 2) {
      pair_rows(item.v.data + (from + row) * item.v.pitch, row + 1 < size ? item.v.pitch : 0, values, room.row);
      float* to = room.panels + row / 2 / tile_depth * value_tile + row / 2 % tile_depth;
      for (Index c = 0; c < values; ++c) to[c / tile_rows * value_panel + c % tile_rows * tile_depth] = room.row[c];
    }
  }

  /// Whole tiles: up to 31 rows behind the strip are written, for which room.k and room.p have room.
  [[gnu::noinline]] static void score(const ForwardRoom& room, const float* q, const Shape& shape, const Strip& strip) {
    const Index pitch = whole_tiles(words_of(shape.channels));
    for (Index step = strip.begin; step < strip.end; step += 2 * tile_rows)
      multiply_tiles<2, true>({.left = room.k + step * pitch,
                               .left_pitch = pitch,
                               .left_next = tile_rows * pitch,
                               .left_step = tile_depth,
                               .right = q,
                               .depth = pitch,
                               .sum = room.p + step * lanes});
  }

  [[gnu::noinline]] static void add_values(const ForwardRoom& room, const Shape& shape, const Strip& strip,
                                           float* out) {
    const Index begin = strip.begin / 2, end = words_of(strip.end);
    round_to_pairs(room.p, strip, begin, end);
    const Index first = begin / tile_depth * tile_depth, depth = round_up(end - first, tile_depth);
    zero(room.p + first * lanes, (begin - first) * lanes);
    zero(room.p + end * lanes, (first + depth - end) * lanes);
    TileProduct p{.left = room.panels + first / tile_depth * value_tile,
                  .left_pitch = tile_depth,
                  .left_next = value_panel,
                  .left_step = value_tile,
                  .right = room.p + first * lanes,
                  .depth = depth,
                  .sum = out};
    Index panels = whole_tiles(shape.value_channels) / tile_rows;
    for (; panels > 1; panels -= 2, p.left += 2 * value_panel, p.sum += 2 * tile_rows * lanes)
      multiply_tiles<2, false>(p);
    if (panels == 1) multiply_tiles<1, false>(p);
  }
};

/// Other types as in the tier without tiles.
void forward_with_tiles(const ForwardItem& item, float* scratch) {
  if (item.shape.type != DType::bf16) return forward<SingleOperands>(item, scratch);
  begin_tiles();
  forward<TileOperands>(item, scratch);
  end_tiles();
}

/// As `peak` of the other tiers, of tile products on numbers without pattern: processors run hotter, and slower, on those.
double peak_of_tiles(Index repeats) {
  alignas(64) float words[2][value_tile];
  unsigned random = 1;
  for (float& word : words[0])
    word = __builtin_bit_cast(float, ((random = random * 1664525U + 1013904223U) & 0x3fff3fffU));
  for (float& word : words[1])
    word = __builtin_bit_cast(float, ((random = random * 1664525U + 1013904223U) & 0x3fff3fffU));
  begin_tiles();
  tile_load<6, tile_depth>(words[0], tile_depth);
  tile_load<7>(words[1], tile_depth);
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  for (Index n = 0; n < repeats * 24; ++n) {
    tile_multiply<0, 6, 7>();
    tile_multiply<1, 6, 7>();
    tile_multiply<2, 6, 7>();
    tile_multiply<3, 6, 7>();
  }
  tile_store<0>(words[0], tile_depth);
  end_tiles();
  return static_cast<double>(words[0][0]);
}

constexpr Tier with_tiles(Tier tier) {
  tier.forward = forward_with_tiles;
  tier.width = tile_rows * width * tile_depth * 2;
  tier.peak = peak_of_tiles;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

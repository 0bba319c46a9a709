#pragma once
#include "kernel/cpu/tile_words.hpp"

// What forward with tile products keeps in memory, and how operands get there.

namespace annulus::cpu {
namespace {

/// Ways of computing: the type of the inputs, their terms, the products that count, smallest first, and the steps of a
/// unit of work.
struct PlainPairs {  // bf16 as it is; P rounded to bf16
  static constexpr bool split = false, fresh_sums = false, exact_powers = false;
  static constexpr int terms = 1;
  static constexpr Index steps = 512;
  static constexpr TermPair scores[] = {{0, 0}}, values[] = {{0, 0}};
};
struct ThreeTerms {  // f32, and P, exactly; of products what is above 2^-24
  static constexpr bool split = true, fresh_sums = true, exact_powers = true;
  static constexpr int terms = 3;
  static constexpr Index steps = 384;
  static constexpr TermPair scores[] = {{2, 0}, {1, 1}, {1, 0}, {0, 2}, {0, 1}, {0, 0}};
  static constexpr TermPair values[] = {{2, 0}, {1, 1}, {1, 0}, {0, 2}, {0, 1}, {0, 0}};
};
struct TwoTerms {  // f32, and P, to 2^-17; of products what is above 2^-18
  static constexpr bool split = true, fresh_sums = false, exact_powers = false;
  static constexpr int terms = 2;
  static constexpr Index steps = 512;
  static constexpr TermPair scores[] = {{1, 0}, {0, 1}, {0, 0}}, values[] = {{1, 0}, {0, 1}, {0, 0}};
};
struct TwoExactTerms : TwoTerms {  // f16 exactly, and so the scores; P to 2^-17
  static constexpr TermPair scores[] = {{1, 1}, {1, 0}, {0, 1}, {0, 0}};
};

/// Keys in a block: a tile of scores for each vector of lanes.
constexpr Index block_steps = tile_rows;
/// Blocks of lanes that share a packed chunk, at most, and how many there must be room for: the lanes of a tier are whole
/// blocks of both kinds (with_tiles).
constexpr Index most_blocks = 64, least_blocks = 3;

struct TileRoom {
  ForwardBlock first;
  Index block_floats;                    ///< from block to block, for every member alike
  Index depth, panels;                   ///< tile products along the channels; blocks of 32 value channels
  Index k_term, v_term, q_term, p_term;  ///< floats from term to term
  float *row, *turned;                   ///< rows while they are packed
  float* p[2];                           ///< [term][step / 2][lanes]
  float* ring;                           ///< scores of three step blocks, [16][lanes] each
  float* scores;                         ///< of a whole unit, [step][lanes]
  float* fresh;                          ///< sums of one panel, [32][lanes]
  ForwardRoom plain;                     ///< of the same pass without tiles, and its queries
  float* plain_q;
  Index floats;
};

ANNULUS_INLINE Index tiled_channels(Index channels) { return round_up(channels, word_channels); }

/// As blocks_of, for lanes and arrays of tile products; half of the room, for the chunks pass through the same cache.
/// Totals are not counted: they are touched too seldom.
template <class Way>
ANNULUS_INLINE Index tile_blocks_of(const Shape& shape) {
  const Index each =
      lanes * (2 * Way::terms * tiled_channels(shape.channels) + 4 * tiled_channels(shape.value_channels));
  return least(most_blocks, most(least_blocks, shape.group_bytes / 2 / each));
}

template <class Way>
TileRoom tile_room(const Shape& shape, float* scratch) {
  Carver carve{scratch};
  TileRoom room{};
  const Index channels = tiled_channels(shape.channels), values = tiled_channels(shape.value_channels);
  const Index wide = most(channels, values);
  room.depth = channels / word_channels;
  room.panels = values / word_channels;
  room.k_term = Way::steps * channels / 2;
  room.v_term = Way::steps * values / 2;
  room.q_term = channels / 2 * lanes;
  room.p_term = Way::steps / 2 * lanes;
  room.row = carve.take(2 * wide);
  room.turned = carve.take(Way::terms * tile_rows * wide);
  room.ring = carve.take(3 * block_steps * lanes);
  room.p[0] = carve.take(Way::terms * room.p_term);
  room.p[1] = carve.take(Way::terms * room.p_term);
  room.fresh = carve.take(word_channels * lanes);
  room.scores = carve.take(Way::steps * lanes);
  const Index begin = carve.used;
  room.first.q = carve.take(Way::terms * room.q_term + 16);  // behind them: 1 if they split badly
  room.first.out = carve.take(values * lanes);
  room.first.total = carve.take(values * lanes);
  take_statistics(carve, room.first);
  room.block_floats = carve.used - begin;
  carve.used += room.block_floats * (tile_blocks_of<Way>(shape) - 1);
  room.plain.row = room.row;
  room.plain.k = carve.take((chunk + unit) * padded(shape.channels));
  room.plain.panels = carve.take(panel_floats(shape.value_channels));
  room.plain.p = carve.take((chunk + unit) * lanes);
  room.plain_q = carve.take(shape.channels * lanes);
  room.floats = carve.used;
  return room;
}

/// Of a chunk: K as [term][step block][depth] tiles, V as [term][panel][32 steps][2], and behind them 1 if some number
/// splits badly or, where none is split, some value is not finite.
template <class Way>
ANNULUS_INLINE Index packed_floats(const TileRoom& room) {
  return Way::terms * (room.k_term + room.v_term) + 16;
}

ANNULUS_INLINE ForwardBlock block_at(const TileRoom& room, Index b) {
  ForwardRoom same{};
  same.first = room.first;
  same.block_floats = room.block_floats;
  return block_at(same, b);
}

/// Steps [begin, end), for values whole blocks of 32, of a chunk of `size` rows from row `from` on; steps from `size` on are zeros.
struct Packing {
  Index from, size, begin, end;
};

/// Rows as the words that tile products multiply.
template <class Way>
struct TileOperands {
  /// Words of row `row` of q or k, [term][tile][16] with tiles `pitch` floats apart; spare: room for the row.
  ANNULUS_INLINE static IntVec place_row(const Source& from, DType type, Index row, Index channels, float* spare,
                                         float* to, Index pitch, Index term) {
    const std::byte* source = from.data + row * from.pitch;
    const Index wide = tiled_channels(channels);
    if constexpr (!Way::split) {
      for (Index c = 0; c < wide; c += word_channels, to += pitch) {
        if (c + word_channels <= channels) {
          __builtin_memcpy(to, source + c * 2, word_channels * 2);
        } else {
          zero(to, tile_depth);
          __builtin_memcpy(to, source + c * 2, static_cast<std::size_t>(channels - c) * 2);
        }
      }
      return IntVec{};
    } else {
      const bool in_place = type == DType::f32 && wide == channels;
      if (!in_place) {
        read_row(source, type, channels, spare);
        zero(spare + channels, wide - channels);
      }
      return split_row<Way::terms>(in_place ? reinterpret_cast<const float*>(source) : spare, wide, to, pitch, term);
    }
  }

  /// Queries as [term][word][lane], and behind them whether they split badly.
  template <class Item>
  static void pack_queries(const Item& item, Index row, Index count, const TileRoom& room, float* q) {
    const Index words = room.depth * tile_depth;
    IntVec bad{};
    for (Index first = 0; first < lanes; first += width) {
      const Index some = least(width, count - first);
      if (some < width) zero(room.turned, Way::terms * width * words);
      for (Index r = 0; r < some; ++r) {
        const Index now = row + first + r, later = least(now + lanes, item.group.end);
        prefetch_rows(item.q, item.shape.type, {later, least(later + 1, item.group.end)}, item.shape.channels, 0, 1);
        bad |= place_row(item.q, item.shape.type, now, item.shape.channels, room.row, room.turned + r * words,
                         tile_depth, width * words);
      }
      for (Index term = 0; term < Way::terms; ++term)
        for (Index word = 0; word < words; word += tile_depth)
          turn<tile_depth, width>(room.turned + term * width * words + word, words,
                                  q + term * room.q_term + word * lanes + first, lanes);
    }
    q[Way::terms * room.q_term] = any(bad) ? 1.0F : 0.0F;
  }

  static IntVec pack_keys(const PackItem& item, const Packing& of, const TileRoom& room, float* k) {
    IntVec bad{};
    const Index block_words = room.depth * tile_words;
    for (Index step = of.begin; step < of.end; ++step) {
      float* to = k + step / block_steps * block_words + step % block_steps * tile_depth;
      if (step < of.size) {
        bad |= place_row(item.k, item.shape.type, of.from + step, item.shape.channels, room.row, to, tile_words,
                         room.k_term);
        continue;
      }
      for (Index term = 0; term < Way::terms; ++term)
        for (Index tile = 0; tile < room.depth; ++tile) zero(to + term * room.k_term + tile * tile_words, tile_depth);
    }
    return bad;
  }

  /// Words of rows `row` and row + 1 of v as [term][channel]; only the first where `both` is false.
  static IntVec pair_values(const PackItem& item, Index row, bool both, const TileRoom& room, float* to) {
    const Index values = item.shape.value_channels, wide = room.panels * word_channels;
    const std::byte* source = item.v.data + row * item.v.pitch;
    if constexpr (!Way::split) {
      pair_rows(source, both ? item.v.pitch : 0, values, to);
      zero(to + values, wide - values);
      IntVec bad{};
      for (Index c = 0; c < wide; c += width) bad |= infinite_halves(load(to + c));
      return bad;
    } else {
      const float *low = room.row, *high = room.row + wide;
      if (item.shape.type == DType::f32 && values == wide && both) {
        low = reinterpret_cast<const float*>(source);
        high = reinterpret_cast<const float*>(source + item.v.pitch);
      } else {
        zero(room.row, 2 * wide);
        read_row(source, item.shape.type, values, room.row);
        if (both) read_row(source + item.v.pitch, item.shape.type, values, room.row + wide);
      }
      IntVec bad{};
      for (Index c = 0; c < wide; c += width) {
        const Vec x = load_loose(low + c), y = load_loose(high + c);
        bad |= splits_badly<true>(x) | splits_badly<true>(y);
        store_terms<Way::terms>(x, y, to + c, tile_rows * wide);
      }
      return bad;
    }
  }

  static IntVec pack_values(const PackItem& item, const Packing& of, const TileRoom& room, float* v) {
    IntVec bad{};
    const Index wide = room.panels * word_channels, panel_words = Way::steps / word_channels * 2 * tile_words;
    for (Index step = of.begin; step < of.end; step += word_channels) {
      for (Index word = 0; word < tile_depth; ++word) {
        const Index row = step + 2 * word;
        if (row < of.size) {
          bad |= pair_values(item, of.from + row, row + 1 < of.size, room, room.turned + word * wide);
          continue;
        }
        for (Index term = 0; term < Way::terms; ++term) zero(room.turned + (term * tile_rows + word) * wide, wide);
      }
      for (Index term = 0; term < Way::terms; ++term)
        for (Index c = 0; c < wide; c += tile_rows)
          turn<tile_rows, tile_depth>(room.turned + term * tile_rows * wide + c, wide,
                                      v + term * room.v_term + c / word_channels * panel_words +
                                          step / word_channels * 2 * tile_words + c / tile_rows % 2 * tile_words,
                                      tile_depth);
    }
    return bad;
  }
};

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/block_products.hpp"
#include "kernel/cpu/block_room.hpp"
#include "kernel/cpu/block_weights.hpp"

// Backward in products of blocks of 32 queries, 32 keys and 32 channels (blocks.hpp):
//   S = Q K^T,  dP = dO V^T          left Q, dO [queries][channels]     right K, V [channels][keys]
//   P = 2^(c S - base),  dS = P (dP - delta)                            softmax_scale joins at the end
//   dV^T += dO^T P,  dK^T += Q^T dS  left dO^T, Q^T [channels][queries] right P, dS [queries][keys]
//   dQ += dS K                       left dS [queries][keys]            right K [keys][channels]
// dS is a right factor first and a left one then, and no tile is ever transposed: two rows make a right factor, the two
// halves of a row, keys j and j + 16, the left one.
//
// Every number is the sum of `terms` bf16 numbers: one for bf16 inputs, where P and dS are rounded to it; two for f16,
// which they hold exactly; three for f32, which they hold exactly too, or two where f32 is wanted to 16 bits. With i + j
// counting terms from 0, f32 takes the products of terms with i + j <= 2, all six: what is left out is 2^-24. One less would cost
// up to 2^-17 = 7.6e-6 of a weight (P and dS in two terms) or of a number, systematically where a row's weights are equal.
// S and dP of f16 are exact but for their sums; where P and dS are multiplied, the product of the second terms is left out.

namespace annulus::cpu {
namespace {

/// Chunks whose dV and dK are summed in tiles, where rounding errors grow with the number of queries.
constexpr Index chunks_in_sums = 16;

/// Into how many terms numbers are split, and which products of terms count: those of S and dP, and those of P and dS.
struct Split {
  int terms, scores_reach, weights_reach;
};
constexpr Split one_term{1, 0, 0}, two_terms{2, 1, 1}, two_exact_terms{2, 2, 1}, three_terms{3, 2, 2};

/// The room behind it, for what does not split.
BackwardRoom room_without_tiles(const Shape& shape, int terms, const BlockRoom& room, float* scratch) {
  const Index blocks = (side * key_blocks_of(shape, terms) + lanes - 1) / lanes;
  return backward_room<SingleGradients>(shape, blocks, scratch == nullptr ? nullptr : scratch + room.floats);
}

void bound_block(const Piece& piece, Index key, Index count, Index from, BlockBounds& bounds) {
  for (Index lane = 0; lane < side; ++lane) {
    const Index a = key + lane;
    const bool inside = lane < count && a >= piece.lane_begin && a < piece.lane_end;
    const Index lo = most(piece.step_begin, a + piece.lo) - from, hi = least(piece.step_end - 1, a + piece.hi) - from;
    bounds.lo[lane] = inside ? static_cast<int>(least(most(lo, 0), most_queries)) : static_cast<int>(most_queries);
    bounds.hi[lane] = inside ? static_cast<int>(least(most(hi, -1), most_queries - 1)) : -1;
  }
}

/// A chunk of queries against blocks of keys, one after another. Beside the products of a unit's S and dP stand the weights
/// of the unit before, and after them, beside the weights of the unit itself, a share of the products with the weights of the
/// block before:
///   S, dP of unit u          with the weights of unit u - 1
///   dV, dK of block b - 1    with the weights of unit u, those channels whose turn it is
/// Blocks come in ascending or in descending order.
template <Split split, int words_beside>
class ChunkPass {
 public:
  /// first: block of the part.
  ChunkPass(const Shape& shape, const BlockRoom& room, Index first, RowsAhead& ahead)
      : shape_(shape), room_(room), first_(first), ahead_(ahead) {}

  /// Block b is the one after that which is added next.
  void fetch(Index b) { products_.fetch.aim(room_.k + b * room_.key_floats, room_.key_floats); }

  /// units: those of the chunk that see block b, full: where all its keys see all queries; bounds: for the others.
  void add(Index b, Steps units, Steps full, const BlockBounds& bounds) {
    const Index count = units.end - units.begin, now = 1 - weighed_.buffer;
    Index multiplied = 0;
    for (Index n = 0; n < count; ++n) {
      const Index u = units.begin + n, at = now * all_units + u;
      float *s = room_.s + turn_ * sum_block, *dp = room_.dp + turn_ * sum_block;
      turn_ = 1 - turn_;
      products_.template multiply<true, terms, split.scores_reach>(
          {room_.q + u * x * block, block, room_.k + b * room_.key_floats, block, x, s}, weighing_);
      products_.template multiply<true, terms, split.scores_reach>(
          {room_.dout + u * y * block, block, room_.v + b * room_.key_floats, block, y, dp}, weighing_);
      weighing_.finish();
      products_.finish();
      ahead_.one();
      const Index span = b - (b - first_) % span_blocks;
      if (span_ >= 0 && span_ != span) add_span();
      span_ = span;
      Steps& seen = seen_by_[u];
      seen = seen.end == 0 ? Steps{b, b + 1} : Steps{least(seen.begin, b), most(seen.end, b + 1)};
      weighing_.begin({.s = s,
                       .dp = dp,
                       .minus_base = room_.minus_base + u * side,
                       .delta = room_.delta + u * side,
                       .bounds = &bounds,
                       .c = shape_.log2_scale,
                       .query = u * side,
                       .p = room_.p + at * block,
                       .ds = room_.ds + at * block,
                       .ds_rows = room_.ds_rows + (u * span_blocks + b - span_) * block},
                      u < full.begin || u >= full.end);
      const Index until = (x + y) * (n + 1) / count;
      multiply_weights(multiplied, until);
      multiplied = until;
    }
    weighed_ = {b, units, now};
  }

  void finish() {
    weighing_.finish();
    multiply_weights(0, x + y);
    if (span_ >= 0) add_span();
    products_.finish();
    for (Index u = 0; u < all_units; ++u)
      if (!summed_[u]) zero(room_.dq + u * x * sum_block, x * sum_block);
  }

 private:
  static constexpr int terms = split.terms;
  static constexpr Index block = factor<terms>, all_units = chunk_units<terms>;

  /// Blocks of channels [begin, end), first those of values, of what the keys of the block before get.
  void multiply_weights(Index begin, Index end) {
    const Index depth = weighed_.units.end - weighed_.units.begin, b = weighed_.block,
                from = weighed_.units.begin * block, at = weighed_.buffer * all_units * block + from;
    if (depth == 0) return;
    float* const sums = room_.dv + b * room_.key_floats;
    for (Index n = begin; n < end; ++n) {
      const bool value = n < y;
      const float* left = value ? room_.dout_turned : room_.q_turned;
      products_.template multiply<false, terms, split.weights_reach>(
          {left + (value ? n : n - y) * all_units * block + from, block, (value ? room_.p : room_.ds) + at, block,
           depth, sums + n * sum_block, n + 1 < x + y ? sums + (n + 1) * sum_block : nullptr},
          weighing_);
    }
  }

  /// dQ += dS K over the blocks of the span.
  void add_span() {
    for (Index u = 0; u < all_units; ++u) {
      if (seen_by_[u].begin == seen_by_[u].end) continue;
      if (summed_[u]) add_unit<false>(u, seen_by_[u]);
      else add_unit<true>(u, seen_by_[u]);
      summed_[u] = true;
      seen_by_[u] = {};
    }
    span_ = -1;
  }
  template <bool fresh>
  void add_unit(Index u, Steps seen) {
    for (Index n = 0; n < x; ++n) {
      float* sum = room_.dq + (u * x + n) * sum_block;
      products_.template multiply<fresh, terms, split.weights_reach>(
          {room_.ds_rows + (u * span_blocks + seen.begin - span_) * block, block,
           room_.k_pairs + seen.begin * room_.key_floats + n * block, room_.key_floats, seen.end - seen.begin, sum,
           sum + sum_block});
    }
  }

  /// Whose P and dS are complete, and in which of the two buffers.
  struct Weighed {
    Index block;
    Steps units;
    Index buffer;
  };

  const Shape& shape_;
  const BlockRoom& room_;
  const Index first_;
  RowsAhead& ahead_;
  const Index x = room_.channels, y = room_.values;  ///< blocks of them
  Products<(terms > 1)> products_;
  WeightsBeside<terms, words_beside> weighing_;
  Index turn_ = 0, span_ = -1;
  Weighed weighed_{};
  Steps seen_by_[all_units] = {};  ///< per unit, blocks of the span that see some of it
  bool summed_[all_units] = {};    ///< per unit, whether its dQ has begun
};

/// A chunk of queries, which are packed, against the keys of one part.
template <Split split, int words_beside>
void differentiate_part(const GradientItem& item, const QueryChunk& queries, Steps part, Steps rows, RowsAhead& ahead,
                        const BlockRoom& room) {
  const Piece& piece = queries.piece;
  const Index from = rows.begin, size = rows.end - from, blocks = blocks_in(part.end - part.begin),
              first_block = (part.begin - item.group.begin) / side;
  ChunkPass<split, words_beside> pass(item.shape, room, first_block, ahead);
  const bool back = from / query_chunk<split.terms> % 2 != 0;  // what the chunk before saw last is still in L2
  for (Index n = 0; n < blocks; ++n) {
    const Index b = back ? blocks - 1 - n : n;
    const Index key = part.begin + b * side, count = least(side, part.end - key);
    const Steps seen = steps_seen(piece, key, key + count);
    const Index first = most(seen.begin - from, 0), last = least(seen.end - from, size);
    if (first >= last) continue;
    const Steps units{first / side, blocks_in(last)};
    // a unit is full when its first query is seen by the last key and its last query by the first key; where the chunk ends,
    // the rows after it are packed as rows that saw nothing
    Steps full{0, 0};
    const Index end = rows.end == queries.rows.end ? blocks_in(size) * side : size;
    if (count == side && piece.lane_begin <= key && key + side <= piece.lane_end && key + piece.hi >= from)
      full = {blocks_in(most(key + side - 1 + piece.lo - from, 0)), least(end, key + piece.hi + 1 - from) / side};
    BlockBounds bounds;
    if (full.begin > units.begin || full.end < units.end) bound_block(piece, key, count, from, bounds);
    if (n + 1 < blocks) pass.fetch(first_block + (back ? b - 1 : b + 1));
    pass.add(first_block + b, units, full, bounds);
  }
  pass.finish();
}

/// As many words of weights beside a pair of blocks as are made when the scores of a unit are.
template <Split split>
void differentiate_part(const GradientItem& item, const QueryChunk& queries, Steps part, Steps rows, RowsAhead& ahead,
                        const BlockRoom& room) {
  const Index pairs = 2 * (room.channels + room.values);
  if (pairs >= 16) return differentiate_part<split, 1>(item, queries, part, rows, ahead, room);
  if (pairs >= 8) return differentiate_part<split, 2>(item, queries, part, rows, ahead, room);
  return differentiate_part<split, 4>(item, queries, part, rows, ahead, room);
}

/// Queries of the chunk that comes after this one. Of several terms they are too few beside what the keys take.
template <Split split>
RowsAhead rows_after(const GradientItem& item, const QueryChunk& queries) {
  if (split.terms > 1) return {};
  const Shape& shape = item.shape;
  const Index from = queries.rows.begin, bytes = bytes_of_number(shape.type);
  const Index begin = steps_seen(queries.piece, item.group.begin, item.group.end).begin;
  return {{item.q.data + queries.head * item.q_head_bytes, item.q.pitch},
          {item.dout.data + queries.head * item.dout_head_bytes, item.dout.pitch},
          shape.channels * bytes,
          shape.value_channels * bytes,
          {most(begin, from - query_chunk<split.terms>), from}};
}

/// to[c] += by from[c] for the channels of a block.
ANNULUS_INLINE void add_scaled(const float* from, Index channels, float by, float* to) {
  Index c = 0;
  for (; c + width <= channels; c += width) store_loose(to + c, load_loose(to + c) + splat(by) * load(from + c));
  for (; c < channels; ++c) to[c] += by * from[c];
}

void add_dq(const GradientItem& item, const BlockRoom& room, Index head, Steps rows, Index begin) {
  for (Index row = begin; row < rows.end; ++row) {
    auto* dq = reinterpret_cast<float*>(item.dq.data + head * item.dq_head_bytes + row * item.dq.pitch);
    const Index at = row - rows.begin, channels = item.shape.channels;
    const float* from = room.dq + at / side * room.channels * sum_block + at % side * side;
    for (Index c = 0; c < channels; c += side, from += sum_block)
      add_scaled(from, least(side, channels - c), item.shape.scale, dq + c);
  }
}

/// into[key][c] += by from[c][key] for the keys that a tile holds.
void add_block_lanes(const GradientItem& item, const BlockRoom& room, const float* from, Index channels, float by,
                     const Target& into) {
  const Group& group = item.group;
  for (Index row = group.begin; row < group.end; row += side, from += room.key_floats)
    for (Index c = 0; c < channels; c += side) {
      alignas(64) float turned[sum_block];
      turn_block(from + c * side, turned);
      for (Index key = row; key < least(row + side, group.end); ++key)
        if (room.touched[key - group.begin] != 0)
          add_scaled(turned + (key - row) * side, least(side, channels - c), by,
                     reinterpret_cast<float*>(into.data + key * into.pitch) + c);
    }
}

void add_key_gradients(const GradientItem& item, const BlockRoom& room) {
  add_block_lanes(item, room, room.dk, item.shape.channels, item.shape.scale, item.dk);
  add_block_lanes(item, room, room.dv, item.shape.value_channels, 1, item.dv);
}

/// Chunks of queries that do not split, or all when keys do not, are computed as in the tier without tiles.
template <Split split>
void gradients_in_blocks(const GradientItem& item, float* scratch) {
  constexpr bool splits = split.terms > 1;
  static_assert(!splits || query_chunk<split.terms> <= chunk);
  const BlockRoom room = block_room(item.shape, split.terms, scratch);
  const BackwardRoom other = room_without_tiles(item.shape, split.terms, room, scratch);
  const Index blocks = blocks_in(item.group.end - item.group.begin);
  begin_tiles();
  const bool keys_split = load_key_blocks<split.terms>(item, room);
  bool in_tiles = keys_split;
  Index chunks = 0;
  RowsAhead ahead;
  for_each_chunk<query_chunk<split.terms>>(
      item,
      [&](const QueryChunk& queries) {
        in_tiles = keys_split && pack_query_blocks<split.terms>(item, queries.head, queries.rows.begin,
                                                                queries.rows.end - queries.rows.begin, room);
        ahead = rows_after<split>(item, queries);
      },
      [&](const QueryChunk& queries, Steps part, Steps rows) {
        if (in_tiles) differentiate_part<split>(item, queries, part, rows, ahead, room);
        if constexpr (splits) {  // in one part; of one term, rounding hides what sums lose
          if (!in_tiles) {
            load_group<SingleGradients>(item, other);
            read_chunk<SingleGradients>(item, queries, other);
            differentiate_chunk<SingleGradients>(item, queries, part, rows, other);
            add_group(item, other);
          }
          if (++chunks % chunks_in_sums != 0) return;
          add_key_gradients(item, room);
          clear_key_gradients(room, blocks);
        }
      },
      [&](const QueryChunk& queries, Steps rows, Index begin) {
        if (in_tiles) add_dq(item, room, queries.head, rows, begin);
        else add_chunk(item, other, queries.head, rows, begin);
      });
  add_key_gradients(item, room);
  end_tiles();
}

/// Terms of numbers of this type; 0: as in the tier without tiles. f32_terms: those of f32.
template <int f32_terms>
ANNULUS_INLINE int terms_of(DType type) {
  if (type == DType::f32) return f32_terms;
  return type == DType::bf16 ? 1 : type == DType::f16 ? 2 : 0;
}

template <int f32_terms>
void gradients_with_tiles(const GradientItem& item, float* scratch) {
  if (item.shape.type == DType::bf16) return gradients_in_blocks<one_term>(item, scratch);
  if (item.shape.type == DType::f16) return gradients_in_blocks<two_exact_terms>(item, scratch);
  if (f32_terms == 2) return gradients_in_blocks<two_terms>(item, scratch);
  if (f32_terms == 3) return gradients_in_blocks<three_terms>(item, scratch);
  gradients<SingleGradients>(item, scratch);
}

template <const Tier& base, int f32_terms>
Index group_lanes_with_blocks(const Shape& shape, Pass pass) {
  const int terms = pass == Pass::backward ? terms_of<f32_terms>(shape.type) : 0;
  return terms > 0 ? side * key_blocks_of(shape, terms) : base.group_lanes(shape, pass);
}

template <const Tier& base, int f32_terms>
Index scratch_floats_with_blocks(const Shape& shape, Pass pass) {
  const int terms = pass == Pass::backward ? terms_of<f32_terms>(shape.type) : 0;
  if (terms == 0) return base.scratch_floats(shape, pass);
  const BlockRoom room = block_room(shape, terms, nullptr);
  return room.floats + room_without_tiles(shape, terms, room, nullptr).floats;
}

/// Sums of several terms are rounded every few chunks of a group: there groups stay as they are.
Index part_grain_in_blocks(const Shape& shape) { return shape.type == DType::bf16 ? side : 0; }

/// The tier with its gradients in tiles. f32_terms: 2 or 3, or 0 for f32 as in the tier without tiles.
template <const Tier& base, int f32_terms>
constexpr Tier with_tile_gradients() {
  Tier tier = base;
  tier.group_lanes = group_lanes_with_blocks<base, f32_terms>;
  tier.scratch_floats = scratch_floats_with_blocks<base, f32_terms>;
  tier.gradients = gradients_with_tiles<f32_terms>;
  tier.part_grain = part_grain_in_blocks;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/backward.hpp"
#include "kernel/cpu/block_products.hpp"

// Backward in products of blocks of 32 queries, 32 keys and 32 channels (blocks.hpp):
//   S = Q K^T,  dP = dO V^T          left Q, dO [queries][channels]     right K, V [channels][keys]
//   P = 2^(c S - base),  dS = P (dP - delta)                            softmax_scale joins at the end
//   dV^T += dO^T P,  dK^T += Q^T dS  left dO^T, Q^T [channels][queries] right P, dS [queries][keys]
//   dQ += dS K                       left dS [queries][keys]            right K [keys][channels]
// dS is a right factor first and a left one then, and no tile is ever transposed: two rows make a right factor, the two
// halves of a row, keys j and j + 16, the left one.
//
// Every number is the sum of `terms` bf16 numbers: one for bf16 inputs, where P and dS are rounded to it, and two for f16,
// which they hold exactly. S and dP are then exact but for their sums; where P and dS are multiplied, the product of the
// smaller terms is left out. (f32 in three terms was tried: 1.1 to 1.2 times the speed of backward.hpp.)

namespace annulus::cpu {
namespace {

constexpr Index query_chunk = 128, chunk_units = query_chunk / side;
constexpr Index span_blocks = 8;  ///< blocks of keys whose dS wait for one product with K: sums of dQ are loaded once
/// Chunks whose dV and dK are summed in tiles, where rounding errors grow with the number of queries.
constexpr Index chunks_in_sums = 16;

ANNULUS_INLINE int terms_of(DType type) { return type == DType::bf16 ? 1 : 2; }

/// A factor of a block: its terms one after another.
template <int terms>
constexpr Index factor = terms* factor_block;

struct BlockRoom {
  Index channels, values;         ///< blocks of them
  float *k, *v;                   ///< [block of keys][block of channels], right factors
  float* k_pairs;                 ///< the same, of sums over keys
  float *dk, *dv;                 ///< [block of keys][block of channels], sums [channel][key]
  float* touched;                 ///< [key]
  float *q, *dout;                ///< [unit of 32 queries][block of channels], left factors
  float *q_turned, *dout_turned;  ///< [block of channels][unit], left factors of sums over queries
  float *minus_base, *delta;      ///< [query]
  float* dq;                      ///< [unit][block of channels], sums
  float *s, *dp;                  ///< a sum each
  float *p, *ds;                  ///< [unit], right factors
  float* ds_rows;                 ///< [unit][span_blocks], left factors
  Index floats;
};

/// Blocks of keys in one item.
ANNULUS_INLINE Index key_blocks_of(const Shape& shape) {
  const Index x = blocks_in(shape.channels), y = blocks_in(shape.value_channels);
  const Index block = terms_of(shape.type) * factor_block;
  const Index each = (x * (2 * block + sum_block) + y * (block + sum_block)) * 4;
  return least(48, most(3, shape.group_bytes / each));  // 3: the lanes of a tier, whole blocks of both kinds
}

BlockRoom block_room(const Shape& shape, float* scratch) {
  Carver carve{scratch};
  BlockRoom room{};
  const Index x = blocks_in(shape.channels), y = blocks_in(shape.value_channels), keys = key_blocks_of(shape);
  const Index block = terms_of(shape.type) * factor_block;
  room.channels = x, room.values = y;
  room.s = carve.take(sum_block);
  room.dp = carve.take(sum_block);
  room.p = carve.take(chunk_units * block);
  room.ds = carve.take(chunk_units * block);
  room.minus_base = carve.take(query_chunk);
  room.delta = carve.take(query_chunk);
  room.q = carve.take(chunk_units * x * block);
  room.dout = carve.take(chunk_units * y * block);
  room.q_turned = carve.take(chunk_units * x * block);
  room.dout_turned = carve.take(chunk_units * y * block);
  room.dq = carve.take(chunk_units * x * sum_block);
  room.ds_rows = carve.take(chunk_units * span_blocks * block);
  room.k = carve.take(keys * x * block);
  room.v = carve.take(keys * y * block);
  room.k_pairs = carve.take(keys * x * block);
  room.dk = carve.take(keys * x * sum_block);
  room.dv = carve.take(keys * y * sum_block);
  room.touched = carve.take(keys * side);
  room.floats = carve.used;
  return room;
}

/// 2^t to 8e-6 relative, which is nothing beside the rounding to bf16. Out of range as exp2.
ANNULUS_INLINE Vec exp2_short(Vec t) {
#if defined(__AVX512DQ__)
  // (2^f - 1)/f for f in [0, 1) at four Chebyshev points, so that 2^0 is exact
  const Vec f = _mm512_maskz_reduce_ps(0xffff, t, 9);  // t - floor(t)
  Vec p = splat(1.2763113886e-02F) * f + splat(5.3441029271e-02F);
  p = p * f + splat(2.4064704812e-01F);
  p = p * f + splat(6.9313399262e-01F);
  return _mm512_maskz_scalef_ps(0xffff, p * f + splat(1.0F), t);
#else
  return exp2(t);
#endif
}

/// Which queries the keys of a block see, counted from the chunk's first: key `lane` sees lo <= query <= hi.
struct BlockBounds {
  alignas(64) int lo[side], hi[side];
};

void bound_block(const Piece& piece, Index key, Index count, Index from, BlockBounds& bounds) {
  for (Index lane = 0; lane < side; ++lane) {
    const Index a = key + lane;
    const bool inside = lane < count && a >= piece.lane_begin && a < piece.lane_end;
    const Index lo = most(piece.step_begin, a + piece.lo) - from, hi = least(piece.step_end - 1, a + piece.hi) - from;
    bounds.lo[lane] = inside ? static_cast<int>(least(most(lo, 0), query_chunk)) : static_cast<int>(query_chunk);
    bounds.hi[lane] = inside ? static_cast<int>(least(most(hi, -1), query_chunk - 1)) : -1;
  }
}

/// P and dS of one block from its S and dP. query: its first, counted from the chunk's.
template <int terms, bool masked>
[[gnu::noinline]] void differentiate_block(const BlockRoom& room, const Shape& shape, const BlockBounds& bounds,
                                           Index query, float* p_to, float* ds_to, float* ds_rows) {
  const Vec c = splat(shape.log2_scale);
  const float *minus_base = room.minus_base + query, *delta = room.delta + query, *s = room.s, *dp = room.dp;
#pragma GCC unroll 1
  for (Index word = 0; word < side / 2; ++word)
#pragma GCC unroll 4
    for (Index lane = 0; lane < side / 2; lane += width) {
      Vec p[2][2], ds[2][2];  // [row][half]
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const Index row = 2 * word + r, key = lane + h * side / 2, cell = row * side + key;
          const Vec t = load(s + cell) * c + splat(minus_base[row]);
          p[r][h] = terms == 1 ? exp2_short(t) : exp2(t);
          ds[r][h] = p[r][h] * (load(dp + cell) - splat(delta[row]));
          if (!masked) continue;
          const IntVec at = splat(static_cast<int>(query + row));
          const IntVec seen = ~((at < load(bounds.lo + key)) | (at > load(bounds.hi + key)));
          p[r][h] = keep(seen, p[r][h]);
          ds[r][h] = keep(seen, ds[r][h]);
        }
#pragma GCC unroll 2
      for (int term = 0; term < terms; ++term) {
        UintVec x[2][2], y[2][2];
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) {
            x[r][h] = next_term(p[r][h]);
            y[r][h] = next_term(ds[r][h]);
            if (term + 1 == terms) continue;
            p[r][h] = rest_after(p[r][h], x[r][h]);
            ds[r][h] = rest_after(ds[r][h], y[r][h]);
          }
        const Index at = term * factor_block + lane;
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          store(p_to + at + word * side + h * side / 2, term_pairs(x[0][h], x[1][h]));
          store(ds_to + at + word * side + h * side / 2, term_pairs(y[0][h], y[1][h]));
        }
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) store(ds_rows + at + (2 * word + r) * side / 2, term_pairs(y[r][0], y[r][1]));
      }
    }
}

/// Queries [from, from + size) of one head. Rows that saw nothing have no gradient, whatever stands in dout.
template <int terms>
void pack_query_blocks(const GradientItem& item, Index head, Index from, Index size, const BlockRoom& room) {
  const Index by = head * item.number_head_bytes, x = room.channels, y = room.values;
  const Source q{item.q.data + head * item.q_head_bytes, item.q.pitch},
      dout{item.dout.data + head * item.dout_head_bytes, item.dout.pitch};
  for (Index i = 0; i < query_chunk; ++i) {
    const float lse = i < size ? number_at(Source{item.lse.data + by, item.lse.pitch}, from + i) : -infinity;
    room.minus_base[i] = minus_base_of_lse(lse);
    room.delta[i] = lse == -infinity ? 0.0F : number_at(Source{item.delta.data + by, item.delta.pitch}, from + i);
  }
  for (Index u = 0; u * side < size; ++u) {
    const Index row = from + u * side, count = least(side, size - u * side);
    float *q_unit = room.q + u * x * factor<terms>, *dout_unit = room.dout + u * y * factor<terms>;
    pack_left<terms>(q, item.shape.type, row, count, item.shape.channels, q_unit);
    pack_left<terms>(dout, item.shape.type, row, count, item.shape.value_channels, dout_unit);
    for (Index r = 0; r < count; ++r)
      if (room.minus_base[u * side + r] == -infinity)
        for (Index n = 0; n < y * terms; ++n) zero(dout_unit + n * factor_block + r * 16, 16);
    const auto turn = [&](const float* blocks_of_unit, Index blocks, float* to) {
      for (Index n = 0; n < blocks; ++n)
        for (Index t = 0; t < terms; ++t)
          turn_to_left(blocks_of_unit + (n * terms + t) * factor_block,
                       to + ((n * chunk_units + u) * terms + t) * factor_block);
    };
    turn(q_unit, x, room.q_turned);
    turn(dout_unit, y, room.dout_turned);
  }
}

template <int terms>
void load_key_blocks(const GradientItem& item, const BlockRoom& room) {
  const Shape& shape = item.shape;
  const Index x = room.channels * terms, y = room.values * terms, blocks = blocks_in(item.group.end - item.group.begin);
  for (Index b = 0; b < blocks; ++b) {
    const Index row = item.group.begin + b * side, count = least(side, item.group.end - row);
    float *k = room.q, *v = room.dout;  // where those of the queries will be
    pack_left<terms>(item.k, shape.type, row, count, shape.channels, k);
    pack_left<terms>(item.v, shape.type, row, count, shape.value_channels, v);
    for (Index n = 0; n < x; ++n) {
      turn_to_right(k + n * factor_block, room.k + (b * x + n) * factor_block);
      pair_rows_of(k + n * factor_block, 1, side / 2, room.k_pairs + (b * x + n) * factor_block);
    }
    for (Index n = 0; n < y; ++n) turn_to_right(v + n * factor_block, room.v + (b * y + n) * factor_block);
  }
  zero(room.dk, blocks * room.channels * sum_block);
  zero(room.dv, blocks * room.values * sum_block);
  zero(room.touched, blocks * side);
  for (const Piece* piece = item.group.pieces; piece != item.group.pieces + item.group.piece_count; ++piece)
    for (Index key = most(item.group.begin, piece->lane_begin); key < least(item.group.end, piece->lane_end); ++key)
      room.touched[key - item.group.begin] = 1;
}

/// One block of keys against the chunk's units that see it: their P and dS, and what the keys get from them.
template <int terms>
void differentiate_keys(const Shape& shape, const BlockRoom& room, const BlockBounds& bounds, Steps units, Steps full,
                        Index b, float* ds_rows) {
  constexpr Index block = factor<terms>;
  constexpr int all = 2 * terms - 2, few = terms - 1;  // reach of S and dP; of the products of P and dS
  const Index x = room.channels, y = room.values;
  Products products;
  for (Index u = units.begin; u < units.end; ++u) {
    products.multiply<true, terms, all>({room.q + u * x * block, block, room.k + b * x * block, block, x, room.s});
    products.multiply<true, terms, all>({room.dout + u * y * block, block, room.v + b * y * block, block, y, room.dp});
    products.finish();
    float *p = room.p + u * block, *ds = room.ds + u * block, *rows = ds_rows + u * span_blocks * block;
    if (u >= full.begin && u < full.end) differentiate_block<terms, false>(room, shape, bounds, u * side, p, ds, rows);
    else differentiate_block<terms, true>(room, shape, bounds, u * side, p, ds, rows);
  }
  const Index depth = units.end - units.begin, at = units.begin * block;
  for (Index n = 0; n < y; ++n)
    products.multiply<false, terms, few>({room.dout_turned + n * chunk_units * block + at, block, room.p + at, block,
                                          depth, room.dv + (b * y + n) * sum_block});
  for (Index n = 0; n < x; ++n)
    products.multiply<false, terms, few>({room.q_turned + n * chunk_units * block + at, block, room.ds + at, block,
                                          depth, room.dk + (b * x + n) * sum_block});
  products.finish();
}

/// dQ += dS K over the blocks of a span; seen_by: per unit, those that see some of it.
template <int terms>
void add_span(const BlockRoom& room, Index span, const Steps* seen_by) {
  constexpr Index block = factor<terms>;
  const Index x = room.channels;
  Products products;
  for (Index u = 0; u < chunk_units; ++u)
    for (Index n = 0; n < x && seen_by[u].begin < seen_by[u].end; ++n)
      products.multiply<false, terms, terms - 1>({room.ds_rows + (u * span_blocks + seen_by[u].begin - span) * block,
                                                  block, room.k_pairs + (seen_by[u].begin * x + n) * block, x * block,
                                                  seen_by[u].end - seen_by[u].begin,
                                                  room.dq + (u * x + n) * sum_block});
  products.finish();
}

template <int terms>
void differentiate_chunk(const GradientItem& item, const Piece& piece, Index head, Steps rows, Index begin,
                         const BlockRoom& room) {
  const Shape& shape = item.shape;
  const Group& group = item.group;
  const Source q{item.q.data + head * item.q_head_bytes, item.q.pitch},
      dout{item.dout.data + head * item.dout_head_bytes, item.dout.pitch},
      dq{item.dq.data + head * item.dq_head_bytes, item.dq.pitch};
  const Steps next{most(begin, rows.begin - query_chunk), rows.begin};
  const Index from = rows.begin, size = rows.end - from, blocks = blocks_in(group.end - group.begin);
  pack_query_blocks<terms>(item, head, from, size, room);
  zero(room.dq, chunk_units * room.channels * sum_block);
  for (Index span = 0; span < blocks; span += span_blocks) {
    Steps seen_by[chunk_units] = {};
    for (Index b = span; b < least(span + span_blocks, blocks); ++b) {
      prefetch_rows(q, shape.type, next, shape.channels, b, blocks);
      prefetch_rows(dout, shape.type, next, shape.value_channels, b, blocks);
      prefetch_rows(dq, DType::f32, rows, shape.channels, b, blocks);
      const Index key = group.begin + b * side, count = least(side, group.end - key);
      const Steps seen = steps_seen(piece, key, key + count);
      const Index first = most(seen.begin - from, 0), last = least(seen.end - from, size);
      if (first >= last) continue;
      const Steps units{first / side, blocks_in(last)};
      // a unit is full when its first query is seen by the last key and its last query by the first key
      Steps full{0, 0};
      if (count == side && piece.lane_begin <= key && key + side <= piece.lane_end && key + piece.hi >= from)
        full = {blocks_in(most(key + side - 1 + piece.lo - from, 0)), (key + piece.hi + 1 - from) / side};
      BlockBounds bounds;
      if (full.begin > units.begin || full.end < units.end) bound_block(piece, key, count, from, bounds);
      differentiate_keys<terms>(shape, room, bounds, units, full, b, room.ds_rows + (b - span) * factor<terms>);
      for (Index u = units.begin; u < units.end; ++u) seen_by[u] = {seen_by[u].end == 0 ? b : seen_by[u].begin, b + 1};
    }
    add_span<terms>(room, span, seen_by);
  }
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
  for (Index row = item.group.begin; row < item.group.end; row += side)
    for (Index c = 0; c < channels; c += side, from += sum_block) {
      alignas(64) float turned[sum_block];
      for (Index m = 0; m < side; m += 16)
        for (Index n = 0; n < side; n += 16) turn<16, 16>(from + m * side + n, side, turned + n * side + m, side);
      for (Index key = row; key < least(row + side, item.group.end); ++key)
        if (room.touched[key - item.group.begin] != 0)
          add_scaled(turned + (key - row) * side, least(side, channels - c), by,
                     reinterpret_cast<float*>(into.data + key * into.pitch) + c);
    }
}

void add_key_gradients(const GradientItem& item, const BlockRoom& room) {
  add_block_lanes(item, room, room.dk, item.shape.channels, item.shape.scale, item.dk);
  add_block_lanes(item, room, room.dv, item.shape.value_channels, 1, item.dv);
}

template <int terms>
void gradients_in_blocks(const GradientItem& item, float* scratch) {
  const BlockRoom room = block_room(item.shape, scratch);
  const Index blocks = blocks_in(item.group.end - item.group.begin);
  load_key_blocks<terms>(item, room);
  Index chunks = 0;
  for_each_chunk<query_chunk>(
      item,
      [&](const Piece& piece, Index head, Steps rows, Index begin) {
        differentiate_chunk<terms>(item, piece, head, rows, begin, room);
        if (terms == 1 || ++chunks % chunks_in_sums != 0) return;  // of one term: its rounding hides what sums lose
        add_key_gradients(item, room);
        zero(room.dk, blocks * room.channels * sum_block);
        zero(room.dv, blocks * room.values * sum_block);
      },
      [&](Index head, Steps rows, Index begin) { add_dq(item, room, head, rows, begin); });
  add_key_gradients(item, room);
}

/// f32 as in the tier without tiles.
void gradients_with_tiles(const GradientItem& item, float* scratch) {
  if (item.shape.type == DType::f32) return gradients(item, scratch);
  begin_tiles();
  if (terms_of(item.shape.type) == 1) gradients_in_blocks<1>(item, scratch);
  else gradients_in_blocks<2>(item, scratch);
  end_tiles();
}

ANNULUS_INLINE bool in_blocks(const Shape& shape, Pass pass) {
  return pass == Pass::backward && shape.type != DType::f32;
}

template <const Tier& base>
Index group_lanes_with_blocks(const Shape& shape, Pass pass) {
  return in_blocks(shape, pass) ? side * key_blocks_of(shape) : base.group_lanes(shape, pass);
}

template <const Tier& base>
Index scratch_floats_with_blocks(const Shape& shape, Pass pass) {
  return in_blocks(shape, pass) ? block_room(shape, nullptr).floats : base.scratch_floats(shape, pass);
}

/// The tier with its gradients in tiles.
template <const Tier& base>
constexpr Tier with_tile_gradients() {
  Tier tier = base;
  tier.group_lanes = group_lanes_with_blocks<base>;
  tier.scratch_floats = scratch_floats_with_blocks<base>;
  tier.gradients = gradients_with_tiles;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/forward.hpp"

// Forward for the few rows that share a key/value head in a decoding step. Lanes are channels here, so keys and values are used
// where they lie, once, and no lane is idle; what is computed is next to nothing, and reading is all:
//   s[r][j] = q[r] . k[j]                  products by lane, then the sum over lanes
//   p[r][j] = 2^(c s[r][j] - base[r])      c = scale log2(e), base = top log2(e); top: the largest score so far
//   o[r]    = o[r] + sum_j p[r][j] v[j]    unnormalised f32, summed anew in every span of keys
// Heads of an item are read token by token, so that their rows follow one another.

namespace annulus::cpu {
namespace {

constexpr Index most_rows = width == 16 ? 8 : 4, keys_in_span = 64;
/// Rows that are asked for before they are read.
constexpr Index rows_ahead = 8;

struct RowwiseHead {
  Source k, v;
  float *q, *out, *total, *p;  ///< [rows][channels], 2 [rows][value_channels], [rows][keys_in_span]
  float *top, *sum;            ///< [rows]
};

/// `width` numbers from number c of a row on.
template <DType type>
ANNULUS_INLINE Vec numbers(const std::byte* row, Index c) {
  if constexpr (type == DType::f32) {
    return load_loose(reinterpret_cast<const float*>(row) + c);
  } else {
    const std::byte* const at = row + 2 * c;
#if defined(__AVX512F__)
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    if constexpr (type == DType::f16) return _mm512_maskz_cvtph_ps(0xffff, halves);
    else return reinterpret_cast<Vec>(reinterpret_cast<UintVec>(_mm512_maskz_cvtepu16_epi32(0xffff, halves)) << 16U);
#else
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    if constexpr (type == DType::f16) return _mm256_cvtph_ps(halves);
    else return reinterpret_cast<Vec>(reinterpret_cast<UintVec>(_mm256_cvtepu16_epi32(halves)) << 16U);
#endif
  }
}

ANNULUS_INLINE float sum_of(Vec x) {
#if defined(__AVX512F__)
  const __m256 eight = _mm512_maskz_extractf32x8_ps(0xff, x, 0) + _mm512_maskz_extractf32x8_ps(0xff, x, 1);
#else
  const __m256 eight = x;
#endif
  const __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
  const __m128 two = four + _mm_movehl_ps(four, four);
  return two[0] + two[1];
}

ANNULUS_INLINE void ask_for(const Source& rows, Index row, Index end, Index row_bytes) {
  if (row >= end) return;
  for (Index at = 0; at < row_bytes; at += 64) __builtin_prefetch(rows.data + row * rows.pitch + at, 0, 2);
}

/// p = the scores of keys [from, from + count) for all rows, `keys` at a time.
template <DType type, int rows>
ANNULUS_INLINE void score_keys(const RowwiseHead& head, Index channels, Index from, Index at, Index count) {
  constexpr int keys = rows <= 2 ? 4 : 2;
  for (Index j = at; j < at + count; j += keys) {
    const std::byte* key[keys];
    for (int n = 0; n < keys; ++n) key[n] = head.k.data + (from + least(j + n, at + count - 1)) * head.k.pitch;
    Vec sum[keys][rows] = {};
    for (Index c = 0; c < channels; c += width) {
      Vec x[keys];
#pragma GCC unroll 4
      for (int n = 0; n < keys; ++n) x[n] = numbers<type>(key[n], c);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const Vec q = load(head.q + r * channels + c);
#pragma GCC unroll 4
        for (int n = 0; n < keys; ++n) sum[n][r] += q * x[n];
      }
    }
    for (int n = 0; n < keys && j + n < at + count; ++n)
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) head.p[r * keys_in_span + j + n] = sum_of(sum[n][r]);
  }
}

/// The scores of `count` keys as weights of row r. Returns the factor that brings what the row has so far to its new reference.
ANNULUS_INLINE float weigh_row(const RowwiseHead& head, const Shape& shape, Index r, Index count) {
  float* const p = head.p + r * keys_in_span;
  const Index whole = round_up(count, width);
  for (Index j = count; j < whole; ++j) p[j] = -infinity;
  Vec high = splat(-infinity), sums{};
  for (Index j = 0; j < whole; j += width) high = larger(load(p + j) * splat(shape.scale), high);
  const float before = head.top[r];
  float top = before;
  for (int i = 0; i < width; ++i) top = high[i] > top ? high[i] : top;
  head.top[r] = top;
  const Vec minus_base =
      splat(minus_base_of(top));              // 0 while there is no score: the weights of -inf are 0, and what is
  for (Index j = 0; j < whole; j += width) {  // not a number shows
    const Vec x = exp2(load(p + j) * splat(shape.log2_scale) + minus_base);
    sums += x;
    store(p + j, x);
  }
  const bool moved = before != top && before != -infinity;
  const float factor = moved ? __builtin_exp2f(minus_base_of(top) - minus_base_of(before)) : 1.0F;
  head.sum[r] = head.sum[r] * factor + sum_of(sums);
  return factor;
}

/// out += the values of `keys` keys from key j of the span that begins at `from` on, by their weights.
template <DType type, int rows, int keys>
ANNULUS_INLINE void add_values_of(const RowwiseHead& head, Index values, Index from, Index j) {
  const std::byte* value[keys];
  Vec p[keys][rows];
  for (int n = 0; n < keys; ++n) {
    value[n] = head.v.data + (from + j + n) * head.v.pitch;
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) p[n][r] = splat(head.p[r * keys_in_span + j + n]);
  }
  for (Index c = 0; c < values; c += width) {
    Vec x[keys];
#pragma GCC unroll 4
    for (int n = 0; n < keys; ++n) x[n] = numbers<type>(value[n], c);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      float* const cell = head.out + r * values + c;
      Vec sum = load(cell);
#pragma GCC unroll 4
      for (int n = 0; n < keys; ++n) sum += p[n][r] * x[n];
      store(cell, sum);
    }
  }
}

/// `rows` rows of every head against keys that all of them see; end: of the keys that follow.
template <DType type, int rows>
void attend_span(const RowwiseHead* heads, Index count, const Shape& shape, Steps keys, Index end) {
  constexpr Index together = 4;
  const Index bytes = bytes_of_number(type), size = keys.end - keys.begin;
  for (Index j = 0; j < size; j += together)
    for (Index n = 0; n < count; ++n) {
      const Index some = least(together, size - j);
      for (Index i = 0; i < some; ++i)
        ask_for(heads[n].k, keys.begin + j + i + rows_ahead, end, shape.channels * bytes);
      score_keys<type, rows>(heads[n], shape.channels, keys.begin, j, some);
    }
  for (Index n = 0; n < count; ++n) {
    zero(heads[n].out, rows * shape.value_channels);
    for (Index r = 0; r < rows; ++r) {
      const float factor = weigh_row(heads[n], shape, r, size);
      float* const total = heads[n].total + r * shape.value_channels;
      for (Index c = 0; c < shape.value_channels && factor != 1; ++c) total[c] *= factor;
    }
  }
  for (Index j = 0; j < size; j += together)
    for (Index n = 0; n < count; ++n) {
      const Index some = least(together, size - j);
      for (Index i = 0; i < some; ++i)
        ask_for(heads[n].v, keys.begin + j + i + rows_ahead, end, shape.value_channels * bytes);
      constexpr int at_once = rows <= 4 ? 4 : 2;
      Index i = 0;
      for (; i + at_once <= some; i += at_once)
        add_values_of<type, rows, at_once>(heads[n], shape.value_channels, keys.begin, j + i);
      for (; i < some; ++i) add_values_of<type, rows, 1>(heads[n], shape.value_channels, keys.begin, j + i);
    }
  for (Index n = 0; n < count; ++n)
    for (Index at = 0; at < rows * shape.value_channels; at += width)
      store(heads[n].total + at, load(heads[n].total + at) + load(heads[n].out + at));
}

/// All keys of a piece, for the rows of every head that see them.
template <DType type, int rows>
ANNULUS_INLINE void attend_piece(const RowwiseHead* heads, Index count, const Shape& shape, Steps keys) {
  for (Index at = keys.begin; at < keys.end; at += keys_in_span)
    attend_span<type, rows>(heads, count, shape, {at, least(at + keys_in_span, keys.end)}, keys.end);
}

/// What one row after another sees: none meets the values of keys that it does not see, which need not be finite.
template <DType type>
void attend_rows(const RowwiseHead* heads, Index count, const Shape& shape, Steps rows, Steps keys) {
  for (Index r = rows.begin; r < rows.end; ++r) {
    RowwiseHead row[most_heads];
    for (Index n = 0; n < count; ++n) {
      row[n] = heads[n];
      row[n].q += r * shape.channels, row[n].p += r * keys_in_span;
      row[n].out += r * shape.value_channels, row[n].total += r * shape.value_channels;
      row[n].top += r, row[n].sum += r;
    }
    attend_piece<type, 1>(row, count, shape, keys);
  }
}

/// Whether an item is for this: whole vectors of channels, few rows.
ANNULUS_INLINE bool is_rowwise(const ForwardItem& item) {
  return item.rows > 0 && item.rows <= most_rows && item.shape.channels % width == 0 &&
         item.shape.value_channels % width == 0;
}

Index rowwise_floats(const Shape& shape) {
  return most_heads * most_rows * (shape.channels + 2 * shape.value_channels + keys_in_span + 2 * 16);
}

template <DType type, int rows>
void forward_rowwise(const ForwardItem& item, float* scratch) {
  const Shape& shape = item.shape;
  const Group& group = item.group;
  Carver carve{scratch};
  RowwiseHead heads[most_heads];
  for (Index n = 0; n < item.heads; ++n) {
    RowwiseHead& head = heads[n];
    const ForwardItem from = head_of(item, n);
    head = {.k = from.k,
            .v = from.v,
            .q = carve.take(rows * shape.channels),
            .out = carve.take(rows * shape.value_channels),
            .total = carve.take(rows * shape.value_channels),
            .p = carve.take(rows * keys_in_span),
            .top = carve.take(rows),
            .sum = carve.take(rows)};
    zero(head.q, rows * shape.channels);
    zero(head.sum, rows);
    zero(head.total, rows * shape.value_channels);
    for (Index r = 0; r < rows; ++r) {
      head.top[r] = -infinity;
      if (r < item.rows)
        read_row(from.q.data + (group.begin + r) * from.q.pitch, type, shape.channels, head.q + r * shape.channels);
    }
  }
  for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece) {
    const Steps seen{most(piece->lane_begin - group.begin, 0), least(piece->lane_end - group.begin, item.rows)};
    const Steps keys{piece->step_begin, piece->step_end};
    if (seen.begin == 0 && seen.end == item.rows) attend_piece<type, rows>(heads, item.heads, shape, keys);
    else attend_rows<type>(heads, item.heads, shape, seen, keys);
  }
  for (Index n = 0; n < item.heads; ++n) {
    const ForwardItem to = head_of(item, n);
    for (Index r = 0; r < item.rows; ++r) {
      auto* out = reinterpret_cast<float*>(to.out.data + (group.begin + r) * to.out.pitch);
      for (Index c = 0; c < shape.value_channels; ++c) out[c] = heads[n].total[r * shape.value_channels + c];
      number_at(to.top, group.begin + r) = heads[n].top[r];
      number_at(to.sum, group.begin + r) = heads[n].sum[r];
    }
  }
}

template <DType type>
void forward_rowwise(const ForwardItem& item, float* scratch) {
  if (item.rows <= 1) return forward_rowwise<type, 1>(item, scratch);
  if (item.rows <= 2) return forward_rowwise<type, 2>(item, scratch);
  if (item.rows <= 4) return forward_rowwise<type, 4>(item, scratch);
  if constexpr (most_rows > 4) forward_rowwise<type, 8>(item, scratch);
}

void forward_rowwise(const ForwardItem& item, float* scratch) {
  switch (item.shape.type) {
    case DType::f32:
      return forward_rowwise<DType::f32>(item, scratch);
    case DType::bf16:
      return forward_rowwise<DType::bf16>(item, scratch);
    case DType::f16:
      return forward_rowwise<DType::f16>(item, scratch);
    default:
      return;
  }
}

}  // namespace
}  // namespace annulus::cpu

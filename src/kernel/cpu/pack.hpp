#pragma once
#include "kernel/cpu/product.hpp"
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {
namespace {

/// Steps packed at a time. Each register tile of the second product runs over one chunk, so a short chunk costs loads
/// and stores of the sums; a long one does not stay in L1 (chunk x lanes) and L2 (chunk x channels).
/// Blocks of one vector, for few queries, are bound by reading: there the packed chunks of several heads are to stay in L2.
constexpr Index chunk = vectors == 1 ? 32 : 128;

/// Rows of the side that is walked over, half open.
struct Steps {
  Index begin, end;
};

/// Channels as packed: tails are zeros.
ANNULUS_INLINE Index padded(Index channels) { return round_up(channels, unit); }
/// Floats from panel to panel; the extra unit keeps the panels out of the same cache sets.
constexpr Index panel_pitch = (chunk + unit) * unit;
ANNULUS_INLINE Index panel_floats(Index channels) { return padded(channels) / unit * panel_pitch; }

ANNULUS_INLINE void zero(float* data, Index floats) {
  for (Index i = 0; i < floats; ++i) data[i] = 0;
}

ANNULUS_INLINE float number_f16(std::uint16_t half) {
#if defined(__F16C__)
  return _cvtsh_ss(half);
#else
  const unsigned sign = (half & 0x8000U) << 16U, rest = half & 0x7fffU;
  if (rest >= 0x7c00U) return __builtin_bit_cast(float, sign | 0x7f800000U | ((rest & 0x3ffU) << 13U));
  if (rest >= 0x0400U) return __builtin_bit_cast(float, sign | ((rest << 13U) + (112U << 23U)));
  const float tiny = static_cast<float>(rest) * 0x1p-24F;  // subnormal: rest units of 2^-24
  return sign != 0 ? -tiny : tiny;
#endif
}

ANNULUS_INLINE float number_bf16(std::uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<unsigned>(bits) << 16U);
}

/// One row of n elements as f32.
void read_row(const std::byte* from, DType type, Index n, float* to) {
  Index c = 0;
  if (type == DType::f32) {
    const auto* x = reinterpret_cast<const float*>(from);
    for (; c + width <= n; c += width) store_loose(to + c, load_loose(x + c));
    for (; c < n; ++c) to[c] = x[c];
    return;
  }
  const auto* x = reinterpret_cast<const std::uint16_t*>(from);
  if (type == DType::bf16) {
    typedef std::uint16_t Halves __attribute__((vector_size(width * 2), aligned(2), may_alias));
    for (; c + width <= n; c += width) {
      const UintVec wide = __builtin_convertvector(*reinterpret_cast<const Halves*>(x + c), UintVec) << 16U;
      store_loose(to + c, reinterpret_cast<Vec>(wide));
    }
    for (; c < n; ++c) to[c] = number_bf16(x[c]);
    return;
  }
#if defined(__F16C__)
  for (; c + 8 <= n; c += 8)
    _mm256_storeu_ps(to + c, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + c))));
#endif
  for (; c < n; ++c) to[c] = number_f16(x[c]);
}

ANNULUS_INLINE float number_at(const Source& rows, Index row) {
  return *reinterpret_cast<const float*>(rows.data + row * rows.pitch);
}
ANNULUS_INLINE float& number_at(const Target& rows, Index row) {
  return *reinterpret_cast<float*>(rows.data + row * rows.pitch);
}

/// to[i][j] = from[j][i] for i < rows, j < columns, in rows of these pitches.
template <Index rows, Index columns>
ANNULUS_INLINE void turn(const float* from, Index from_pitch, float* to, Index to_pitch) {
#if defined(__AVX512F__)
  static_assert(rows == 16 && columns == 16);
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * from_pitch);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_maskz_unpacklo_epi32(0xffff, a[i], a[i + 1]);
    b[i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_maskz_unpacklo_epi64(0xff, b[i], b[i + 2]);
    a[i + 1] = _mm512_maskz_unpackhi_epi64(0xff, b[i], b[i + 2]);
    a[i + 2] = _mm512_maskz_unpacklo_epi64(0xff, b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_maskz_unpackhi_epi64(0xff, b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_maskz_shuffle_i32x4(0xffff, a[i], a[4 + i], 0x88);
    b[4 + i] = _mm512_maskz_shuffle_i32x4(0xffff, a[i], a[4 + i], 0xdd);
    b[8 + i] = _mm512_maskz_shuffle_i32x4(0xffff, a[8 + i], a[12 + i], 0x88);
    b[12 + i] = _mm512_maskz_shuffle_i32x4(0xffff, a[8 + i], a[12 + i], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_si512(to + i * to_pitch, _mm512_maskz_shuffle_i32x4(0xffff, b[i], b[8 + i], 0x88));
    _mm512_storeu_si512(to + (8 + i) * to_pitch, _mm512_maskz_shuffle_i32x4(0xffff, b[i], b[8 + i], 0xdd));
  }
#else
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) to[i * to_pitch + j] = from[j * from_pitch + i];
#endif
}

/// Words of `width` rows, `pitch` words apart, as [word][lane] from lane `first` on.
ANNULUS_INLINE void place_lanes(const float* rows, Index pitch, Index words, Index first, float* to) {
  Index c = 0;
  for (; c + 16 <= words; c += 16) turn<16, width>(rows + c, pitch, to + c * lanes + first, lanes);
  for (; c < words; ++c)
    for (Index lane = 0; lane < width; ++lane) to[c * lanes + first + lane] = rows[lane * pitch + c];
}

/// One row of n words into its lane of [word][lane].
ANNULUS_INLINE void place_lane(const float* row, Index n, Index lane, float* to) {
  for (Index c = 0; c < n; ++c) to[c * lanes + lane] = row[c];
}

/// Rows [begin, begin + count) as [channel][lane]; lanes beyond count become zeros. row: room for `channels` floats.
void pack_lanes(const Source& from, DType type, Index begin, Index count, Index channels, float* row, float* to) {
  if (count < lanes) zero(to, channels * lanes);
  Index lane = 0;
  if (type == DType::f32 && from.pitch % 4 == 0)
    for (; lane + width <= count; lane += width)
      place_lanes(reinterpret_cast<const float*>(from.data + (begin + lane) * from.pitch), from.pitch / 4, channels,
                  lane, to);
  for (; lane < count; ++lane) {
    read_row(from.data + (begin + lane) * from.pitch, type, channels, row);
    place_lane(row, channels, lane, to);
  }
}

/// Rows [begin, begin + count) as [row][padded(channels)], the tail zeros.
void pack_rows(const Source& from, DType type, Index begin, Index count, Index channels, float* to) {
  const Index pitch = padded(channels);
  for (Index r = 0; r < count; ++r, to += pitch) {
    read_row(from.data + (begin + r) * from.pitch, type, channels, to);
    for (Index c = channels; c < pitch; ++c) to[c] = 0;
  }
}

typedef float UnitVec __attribute__((vector_size(unit * 4), aligned(4), may_alias));

/// One row of padded(channels) floats into place r of every panel.
ANNULUS_INLINE void spread_row(const float* row, Index r, Index channels, float* panels) {
  float* to = panels + r * unit;
  for (Index c = 0; c < channels; c += unit, to += panel_pitch)
    *reinterpret_cast<UnitVec*>(to) = *reinterpret_cast<const UnitVec*>(row + c);
}

/// Packed rows (as pack_rows leaves them) as panels.
[[maybe_unused]] void spread_rows(const float* rows, Index count, Index channels, float* panels) {
  for (Index r = 0; r < count; ++r) spread_row(rows + r * padded(channels), r, channels, panels);
}

/// Rows [begin, begin + count) as panels. row: room for padded(channels) floats.
void pack_panels(const Source& from, DType type, Index begin, Index count, Index channels, float* row, float* panels) {
  const bool in_place = type == DType::f32 && channels % unit == 0;
  for (Index c = channels; c < padded(channels); ++c) row[c] = 0;
  for (Index r = 0; r < count; ++r) {
    const std::byte* source = from.data + (begin + r) * from.pitch;
    if (!in_place) read_row(source, type, channels, row);
    spread_row(in_place ? reinterpret_cast<const float*>(source) : row, r, channels, panels);
  }
}

ANNULUS_INLINE Index bytes_of_number(DType type) { return type == DType::f32 ? 4 : 2; }

/// Asks for part `part` of `parts` of rows [begin, end) to be brought into L2: packing is otherwise bound by the next
/// cache's latency. Called between blocks of lanes, so that the requests are spread over the arithmetic.
ANNULUS_INLINE void prefetch_rows(const Source& from, DType type, Steps rows, Index channels, Index part, Index parts) {
  const Index count = most(rows.end - rows.begin, 0), bytes = channels * bytes_of_number(type);
  for (Index row = rows.begin + count * part / parts; row < rows.begin + count * (part + 1) / parts; ++row)
    for (Index at = 0; at < bytes; at += 64) __builtin_prefetch(from.data + row * from.pitch + at, 0, 2);
}

/// Hands out the scratch of an item, piece by piece; with no memory behind it, it only counts.
struct Carver {
  float* base;
  Index used = 0;
  float* take(Index floats) {
    float* piece = base == nullptr ? nullptr : base + used;
    used += round_up(floats, 16);  // 64 bytes
    return piece;
  }
};

/// Blocks of lanes that share a packed chunk: as many as fit in the cache. More than 24 gain nothing; two at least, because
/// the lanes of tiers with tiles are two blocks (with_tiles).
ANNULUS_INLINE Index blocks_of(const Shape& shape) {
  const Index each = lanes * (shape.channels + shape.value_channels) * 4;
  return least(24, most(2, shape.group_bytes / each));
}

}  // namespace
}  // namespace annulus::cpu

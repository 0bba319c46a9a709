#pragma once
#include "kernel/cpu/vec.hpp"

// The eight tile registers of AMX: 16 rows of up to 16 words. Where AMX is not compiled for, a twin in plain C++ with the
// same operations, so that what is made of them can be tested everywhere; there rows of sums and of right factors are as
// wide as a vector.

namespace annulus::cpu {
namespace {

constexpr Index tile_rows = 16, tile_depth = 16;  ///< depth: words of a left factor's row, rows of a right factor

#if defined(ANNULUS_AMX)

/// Eight registers of 16 rows of 64 bytes; everything else must be 0.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// Each thread configures its own registers. Assembly throughout: the intrinsics of g++ 12 take register numbers as text
/// only, take 8 bytes of the configuration for all of it, and do not say that they touch memory.
ANNULUS_INLINE void begin_tiles() {
  const TileConfig config;
  asm volatile("ldtilecfg %0" ::"m"(config));
}
ANNULUS_INLINE void end_tiles() { asm volatile("tilerelease"); }

template <int tile>
ANNULUS_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
/// pitch: words from row to row. words: in a row; 16 in a left factor, `width` in the others, which is the same here.
template <int tile, Index words = width>
ANNULUS_INLINE void tile_load(const float* from, Index pitch) {
  static_assert(words == 16);
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(pitch * 4), "i"(tile) : "memory");
}
/// As tile_load, of what is not wanted again soon: it does not displace what is in L1.
template <int tile, Index words = width>
ANNULUS_INLINE void tile_stream(const float* from, Index pitch) {
  static_assert(words == 16);
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(pitch * 4), "i"(tile) : "memory");
}
template <int tile>
ANNULUS_INLINE void tile_store(float* to, Index pitch) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(pitch * 4), "i"(tile) : "memory");
}
/// sum[m][n] += sum_d left[m][d] right[d][n] over pairs of bf16 numbers.
template <int sum, int left, int right>
ANNULUS_INLINE void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
}

#else

struct TwinTile {
  float words[16][16];
};
thread_local TwinTile twin_tiles[8];

void begin_tiles() {}
void end_tiles() {
  for (TwinTile& tile : twin_tiles) tile = {};
}

template <int tile>
void tile_zero() {
  twin_tiles[tile] = {};
}
template <int tile, Index words = width>
void tile_load(const float* from, Index pitch) {
  for (Index row = 0; row < tile_rows; ++row)
    for (Index word = 0; word < words; ++word) twin_tiles[tile].words[row][word] = from[row * pitch + word];
}
template <int tile, Index words = width>
void tile_stream(const float* from, Index pitch) {
  tile_load<tile, words>(from, pitch);
}
template <int tile>
void tile_store(float* to, Index pitch) {
  for (Index row = 0; row < tile_rows; ++row)
    for (Index word = 0; word < width; ++word) to[row * pitch + word] = twin_tiles[tile].words[row][word];
}
template <int sum, int left, int right>
void tile_multiply() {
  const auto low = [](float word) { return __builtin_bit_cast(float, __builtin_bit_cast(unsigned, word) << 16U); };
  const auto high = [](float word) {
    return __builtin_bit_cast(float, __builtin_bit_cast(unsigned, word) & 0xffff0000U);
  };
  for (Index m = 0; m < tile_rows; ++m)
    for (Index n = 0; n < width; ++n)
      for (Index d = 0; d < tile_depth; ++d) {
        const float a = twin_tiles[left].words[m][d], b = twin_tiles[right].words[d][n];
        twin_tiles[sum].words[m][n] += low(a) * low(b) + high(a) * high(b);
      }
}

#endif

}  // namespace
}  // namespace annulus::cpu

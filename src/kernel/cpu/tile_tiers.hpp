#pragma once
#include "kernel/cpu/table.hpp"
#include "kernel/cpu/tiles.hpp"

// The tiers of tile products: their forward and traces in the lanes of tile_forward.hpp, all else as in the tier without tiles.

namespace annulus::cpu {
namespace {

/// Which inputs go through tiles, and how: "amx-bf16" takes bf16 as it is, "amx-split" f32 and f16 as exact sums of bf16
/// terms, "amx-fast" as sums of two.
enum class Tiling { pairs, split, fast };

template <const TileForward* const* code, Tiling tiling>
const TileWay* way_of(DType type) {
  const TileForward& ways = **code;
  if (tiling == Tiling::pairs) return type == DType::bf16 ? &ways.plain_pairs : nullptr;
  if (type == DType::bf16 || type == DType::f64) return nullptr;
  if (tiling == Tiling::fast) return &ways.two_terms;
  return type == DType::f16 ? &ways.two_exact_terms : &ways.three_terms;
}

/// Traces are exact whatever forward is.
template <const TileForward* const* code, Tiling tiling>
const TileWay* trace_way_of(DType type) {
  return way_of < code, tiling == Tiling::fast ? Tiling::split : tiling > (type);
}

template <const TileForward* const* code, Tiling tiling>
struct TileTier {
  static Index group_rows(const Shape& shape, Pass pass) {
    const TileWay* way = way_in(pass, shape.type);
    if (way == nullptr) return group_lanes(shape, pass);
    return pass == Pass::forward ? way->group_lanes(shape) : way->trace_lanes(shape);
  }
  static Index scratch(const Shape& shape, Pass pass) {
    const TileWay* way = way_in(pass, shape.type);
    if (way == nullptr) return scratch_floats(shape, pass);
    return pass == Pass::forward ? way->scratch_floats(shape) : way->trace_floats(shape);
  }
  static const TileWay* way_in(Pass pass, DType type) {
    if (pass == Pass::backward) return nullptr;
    return pass == Pass::forward ? way_of<code, tiling>(type) : trace_way_of<code, tiling>(type);
  }
  static Index forward_lanes(const Shape& shape) {
    return way_of<code, tiling>(shape.type) != nullptr ? (**code).lanes : lanes;
  }
  static ChunkForm chunks(const Shape& shape) {
    const TileWay* way = way_of<code, tiling>(shape.type);
    return way != nullptr ? way->chunks(shape) : ChunkForm{0, 0};
  }
  static void pack(const PackItem& item, float* scratch) { way_of<code, tiling>(item.shape.type)->pack(item, scratch); }
  static void run(const ForwardItem& item, float* scratch) {
    const TileWay* way = way_of<code, tiling>(item.shape.type);
    return way != nullptr ? way->forward(item, scratch) : forward<SingleOperands>(item, scratch);
  }
  static void trace(const RowTraceItem& item, float* scratch) {
    const TileWay* way = trace_way_of<code, tiling>(item.shape.type);
    return way != nullptr ? way->row_traces(item, scratch) : row_traces<SingleScores>(item, scratch);
  }
};

/// As `peak` of the other tiers, of tile products on numbers without pattern that change from product to product, loaded
/// from L1 beside them: processors run hotter, and a fifth slower, on those than on zeros or on the same tiles again.
double peak_of_tiles(Index repeats) {
  constexpr Index tiles = 16, words_in_tile = tile_rows * tile_depth;
  alignas(64) static thread_local float words[tiles][words_in_tile];
  if (words[0][0] == 0) {
    unsigned random = 1;
    const auto half = [&] { return 0x3f00U | (((random = random * 1664525U + 1013904223U) >> 9U) & 0x80ffU); };
    for (auto& tile : words)
      for (float& word : tile) word = __builtin_bit_cast(float, half() | half() << 16U);
  }
  alignas(64) float sums[words_in_tile];
  begin_tiles();
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  for (Index n = 0; n < repeats * 24; ++n) {
    const float* at = words[n * 4 % tiles];
    tile_load<4, tile_depth>(at, tile_depth);
    tile_load<6>(at + words_in_tile, tile_depth);
    tile_multiply<0, 4, 6>();
    tile_load<5, tile_depth>(at + 2 * words_in_tile, tile_depth);
    tile_multiply<1, 5, 6>();
    tile_load<7>(at + 3 * words_in_tile, tile_depth);
    tile_multiply<2, 4, 7>();
    tile_multiply<3, 5, 7>();
  }
  tile_store<0>(sums, tile_depth);
  end_tiles();
  return static_cast<double>(sums[0]);
}

/// Lanes: whole blocks of both kinds.
template <const TileForward* const* code, Tiling tiling>
constexpr Tier with_tiles(Tier tier) {
  using Mine = TileTier<code, tiling>;
  tier.lanes *= 2;
  tier.group_lanes = Mine::group_rows;
  tier.scratch_floats = Mine::scratch;
  tier.chunks = Mine::chunks;
  tier.forward_lanes = Mine::forward_lanes;
  tier.pack = Mine::pack;
  tier.forward = Mine::run;
  tier.row_traces = Mine::trace;
  tier.width = tile_rows * width * tile_depth * 2;
  tier.peak = peak_of_tiles;
  return tier;
}

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include <cstddef>
#include <cstdint>

#include "annulus/base/types.hpp"

// What the kernel class (tiled.cpp, compiled for every machine) says to the code of one tier (portable.cpp, avx2.cpp,
// avx512.cpp, avx512_bf16.cpp, amx_bf16.cpp with amx_forward.cpp, compiled with that tier's instructions): plain values and
// a table of functions. Nothing here may define an inline function: two tiers would compile it differently under one name,
// and the linker would keep either.

namespace annulus::cpu {

/// Rows of one head in the caller's memory: row r begins at data + r * pitch (bytes).
struct Source {
  const std::byte* data;
  Index pitch;
};
struct Target {
  std::byte* data;
  Index pitch;
};

struct Shape {
  Index channels, value_channels;
  DType type;         ///< of q, k, v, dout
  float scale;        ///< softmax_scale
  float log2_scale;   ///< softmax_scale log2(e), rounded once
  Index group_bytes;  ///< what the arrays of a group of rows may fill: they are read again for every chunk of steps
};

/// A tile as seen by rows that lie in SIMD lanes and walk over steps. Forward: lanes are queries, steps are keys;
/// gradients of keys: the reverse. Lane row a sees step row b iff lane and step are inside and lo <= b - a <= hi (local
/// rows).
struct Piece {
  Index lane_begin, lane_end, step_begin, step_end;
  Index lo, hi;
  Index lane_at, step_at, stride;  ///< global index of the first lane row and of the first step row, and their distance
  Index chunk = 0;                 ///< number of its first packed chunk (ChunkForm)
};

/// Lane rows [begin, end) of one head, and the tiles that touch them, in the order of the call.
struct Group {
  Index begin, end;
  const Piece* pieces;
  Index piece_count;
};

/// Keys and values that a tier wants packed once for all groups of rows: every piece in chunks of `steps` rows, from its
/// first on (the last may have fewer), `floats` each. steps = 0: groups pack for themselves.
struct ChunkForm {
  Index steps, floats;
};

/// Packs rows [from, from + size) of one key/value head.
struct PackItem {
  Shape shape;
  Source k, v;
  Index from, size;
  float* to;  ///< aligned to 64 bytes
};

struct ForwardItem {
  Shape shape;
  Group group;  ///< lanes: queries
  Source q, k, v;
  Target out, top, sum;
  const float* packed = nullptr;  ///< chunks of k and v by their number, where the tier wants them
  bool last = false;              ///< all rows of the group are to be normalised, with lse in place of top
  Index rows = 0;                 ///< more than 0: so many first rows of the group are all, and have met nothing yet
  Index heads = 1;  ///< head n of them begins n * bytes further in every row; at most Tier::heads_together
  Index q_head_bytes = 0, k_head_bytes = 0, v_head_bytes = 0, out_head_bytes = 0, number_head_bytes = 0;
};

/// Turns of the groups of a call at rows that all of them add to. done_from[group][head]: that group is done with rows from
/// here on; it begins beyond all rows. A group waits for those before it, which other threads must already have begun.
struct Turns {
  Index* done_from;
  Index turn, heads;  ///< turn: number of the group
  void (*pause)();    ///< called while waiting
};

/// Gradients of a group of keys. The query heads that share one key/value head: head n of them begins n * bytes further in every row.
struct GradientItem {
  Shape shape;
  Group group;       ///< lanes: keys
  Index part_lanes;  ///< the group is several of so many keys each (the last may have fewer), which add to dq in turn
  Source q, dout, lse, delta, k, v;
  Index heads, q_head_bytes, dout_head_bytes, number_head_bytes;
  Target dk, dv, dq;
  Index dq_head_bytes;
  Turns turns;       ///< of the first part
  Index first_head;  ///< of the heads, as counted by turns
};

/// Null data: not wanted.
struct RowTraceItem {
  Shape shape;
  Group group;  ///< lanes: queries
  Source q, k, lse;
  Target entropy, max_probability, sink_mass, mean_distance;
  Target top_score, top_index;  ///< top_index: Index elements
  Index top_count, sink_tokens, query_shift;
  double* mass;  ///< [query blocks][key_blocks] of this head, or null
  Index block_tokens, key_blocks;
  Target received;  ///< of keys: all groups add to it
  Turns turns;
  Index head;  ///< as counted by turns
};

enum class Pass { forward, backward, observe };

/// The functions of one tier. Scratch: floats aligned to 64 bytes, zeroed when they were allocated; what they hold
/// between calls does not matter.
struct Tier {
  Index lanes;                                  ///< rows side by side in a register tile
  Index width;                                  ///< products in a vector instruction
  Index (*group_lanes)(const Shape&, Pass);     ///< rows that should share a chunk of packed steps, at most
  Index (*scratch_floats)(const Shape&, Pass);  ///< what the functions of this pass need
  void (*forward)(const ForwardItem&, float* scratch);
  void (*gradients)(const GradientItem&, float* scratch);
  void (*row_traces)(const RowTraceItem&, float* scratch);
  double (*peak)(Index repeats);  ///< for benchmarks: repeats * 96 vector instructions of `width` products and sums
  ChunkForm (*chunks)(const Shape&);
  void (*pack)(const PackItem&, float* scratch);  ///< in the scratch of forward; null where chunks never have steps
  Index (*part_grain)(
      const Shape&);  ///< gradients takes groups of parts of a multiple of so many lanes; 0: of one part
  Index (*forward_lanes)(const Shape&);   ///< of one block of forward, which computes all of them; they divide `lanes`
  Index (*heads_together)(const Shape&);  ///< of one item of forward with one block of lanes; null: one
  const Tier* const* narrow;              ///< forward with fewer lanes, for few rows; null where there is none
};

/// Forward and traces of the tiers with tile products, in lanes of their own (tile_forward.hpp, tile_observe.hpp): one way of
/// computing.
struct TileWay {
  Index (*group_lanes)(const Shape&);
  Index (*scratch_floats)(const Shape&);
  ChunkForm (*chunks)(const Shape&);
  void (*pack)(const PackItem&, float* scratch);
  void (*forward)(const ForwardItem&, float* scratch);
  Index (*trace_lanes)(const Shape&);
  Index (*trace_floats)(const Shape&);
  void (*row_traces)(const RowTraceItem&, float* scratch);
};
struct TileForward {
  Index lanes;
  TileWay plain_pairs, three_terms, two_terms, two_exact_terms;
};
/// Compiled by itself (amx_forward.cpp); null where the tiers of AMX are.
extern const TileForward* const amx_forward;

/// One per translation unit; null where the tier was not compiled for this processor family.
extern const Tier* const portable_tier;
extern const Tier* const avx2_tier;
extern const Tier* const avx512_tier;
extern const Tier* const avx512_bf16_tier;
extern const Tier* const amx_bf16_tier;  // this and the next two: amx_bf16.cpp
extern const Tier* const amx_split_tier;
extern const Tier* const amx_fast_tier;
/// Tier::narrow of the tiers of these names: nothing but forward.
extern const Tier* const avx2_narrow;
extern const Tier* const avx512_narrow;
extern const Tier* const avx512_bf16_narrow;

}  // namespace annulus::cpu

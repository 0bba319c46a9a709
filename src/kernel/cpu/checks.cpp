#include "kernel/cpu/checks.hpp"

#include <string_view>

#include "kernel/map_check.hpp"

namespace annulus::cpu {
namespace {

// Rows called `what` must be of this type and shape, in memory that the CPU can read element by element.
void check_rows(std::string_view what, const Rows& rows, DType type, Index tokens, Index heads, Index channels) {
  require(rows.type == type, what, " must be ", name_of(type), ", but is ", name_of(rows.type));
  require(rows.place == Place::cpu, what, " must be in host memory for a CPU kernel");
  require(rows.tokens >= tokens && rows.heads == heads && rows.channels == channels, what, " must hold ", tokens,
          " rows x ", heads, " heads x ", channels, " channels, but holds ", rows.tokens, " x ", rows.heads, " x ",
          rows.channels);
  check_layout(what, rows);
}

void check_tiles(std::span<const Tile> tiles, Index queries, Index keys) {
  for (const Tile& tile : tiles) {
    require(tile.q.begin >= 0 && tile.q.end <= queries && tile.k.begin >= 0 && tile.k.end <= keys,
            "a tile must lie inside its rows: queries [", tile.q.begin, ", ", tile.q.end, ") of ", queries, ", keys [",
            tile.k.begin, ", ", tile.k.end, ") of ", keys);
    require(tile.stride > 0, "a tile's stride must be positive, but is ", tile.stride);
  }
}

void check_optional(std::string_view what, const Rows& rows, Index tokens, Index heads, Index channels) {
  if (!rows.absent()) check_rows(what, rows, DType::f32, tokens, heads, channels);
}

}  // namespace

void check_problem(const Problem& p) {
  require(p.type != DType::f64, "the tiled kernel computes f32, bf16 and f16; f64 is the reference kernel's");
  require(p.query_heads >= 0 && p.kv_heads >= 0 && p.channels > 0 && p.value_channels > 0,
          "channels must be positive, and heads not negative: query heads = ", p.query_heads,
          ", kv heads = ", p.kv_heads, ", channels = ", p.channels, ", value channels = ", p.value_channels);
  require(p.channels <= 512 && p.value_channels <= 512, "channels must not exceed 512: channels = ", p.channels,
          ", value channels = ", p.value_channels);
  if (p.query_heads == 0) return;  // a rank beyond the heads of the grid: it has nothing to compute
  require(p.group > 0 && p.phase >= 0 && p.kv_head(p.query_heads - 1) < p.kv_heads,
          "every query head needs a kv head: query heads = ", p.query_heads, ", kv heads = ", p.kv_heads,
          ", group = ", p.group, ", phase = ", p.phase);
}

void check_forward(const Problem& p, std::span<const Tile> tiles, const Rows& q, const KeyValue& kv,
                   const Partial& into) {
  check_tiles(tiles, q.tokens, kv.k.tokens);
  check_rows("q", q, p.type, 0, p.query_heads, p.channels);
  check_rows("k", kv.k, p.type, 0, p.kv_heads, p.channels);
  check_rows("v", kv.v, p.type, kv.k.tokens, p.kv_heads, p.value_channels);
  check_rows("partial out", into.out, DType::f32, q.tokens, p.query_heads, p.value_channels);
  check_rows("partial top", into.top, DType::f32, q.tokens, p.query_heads, 1);
  check_rows("partial sum", into.sum, DType::f32, q.tokens, p.query_heads, 1);
}

void check_backward(const Problem& p, std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv,
                    const Gradients& into) {
  const Index queries = saved.q.tokens, keys = kv.k.tokens;
  check_tiles(tiles, queries, keys);
  check_rows("q", saved.q, p.type, 0, p.query_heads, p.channels);
  check_rows("dout", saved.dout, p.type, queries, p.query_heads, p.value_channels);
  check_rows("lse", saved.lse, DType::f32, queries, p.query_heads, 1);
  check_rows("delta", saved.delta, DType::f32, queries, p.query_heads, 1);
  check_rows("k", kv.k, p.type, 0, p.kv_heads, p.channels);
  check_rows("v", kv.v, p.type, keys, p.kv_heads, p.value_channels);
  check_rows("dq", into.dq, DType::f32, queries, p.query_heads, p.channels);
  check_rows("dk", into.dk, DType::f32, keys, p.kv_heads, p.channels);
  check_rows("dv", into.dv, DType::f32, keys, p.kv_heads, p.value_channels);
}

void check_observe(const Problem& p, std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
                   const Observation& into) {
  check_tiles(tiles, q.tokens, k.tokens);
  check_rows("q", q, p.type, 0, p.query_heads, p.channels);
  check_rows("k", k, p.type, 0, p.kv_heads, p.channels);
  check_rows("lse", lse, DType::f32, q.tokens, p.query_heads, 1);
  check_optional("entropy", into.entropy, q.tokens, p.query_heads, 1);
  check_optional("max_probability", into.max_probability, q.tokens, p.query_heads, 1);
  check_optional("sink_mass", into.sink_mass, q.tokens, p.query_heads, 1);
  check_optional("mean_distance", into.mean_distance, q.tokens, p.query_heads, 1);
  check_optional("received", into.received, k.tokens, p.query_heads, 1);
  check_optional("top_score", into.top_score, q.tokens, p.query_heads, into.top_score.channels);
  require(into.top_score.absent() || static_cast<Index>(into.top_index.size()) >=
                                         into.top_score.tokens * into.top_score.heads * into.top_score.channels,
          "top_index must have the shape of top_score, but has ", into.top_index.size(), " elements");
  check_map(tiles, p, into);
}

}  // namespace annulus::cpu

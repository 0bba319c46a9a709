#include "kernel/cuda/checks.hpp"

#include "annulus/base/error.hpp"
#include "annulus/kernel/cuda.hpp"
#include "kernel/map_check.hpp"

namespace annulus::cuda {
namespace {

void check_rows(std::string_view what, const Rows& rows, DType type, Index tokens, Index heads, Index channels) {
  require(rows.type == type, what, " must be ", name_of(type), ", but is ", name_of(rows.type));
  require(rows.tokens >= tokens && rows.heads == heads && rows.channels == channels, what, " must hold ", tokens,
          " rows x ", heads, " heads x ", channels, " channels, but holds ", rows.tokens, " x ", rows.heads, " x ",
          rows.channels);
  check_layout(what, rows);
}

void check_tiles(std::span<const Tile> tiles, Index queries, Index keys) {
  for (const Tile& tile : tiles)
    require(tile.q.begin >= 0 && tile.q.end <= queries && tile.k.begin >= 0 && tile.k.end <= keys,
            "a tile must lie inside its rows: queries [", tile.q.begin, ", ", tile.q.end, ") of ", queries, ", keys [",
            tile.k.begin, ", ", tile.k.end, ") of ", keys);
}

}  // namespace

void check_problem(const Problem& p) {
  require(p.query_heads >= 0 && p.kv_heads >= 0 && p.channels > 0 && p.value_channels > 0,
          "channels must be positive, and heads not negative: query heads = ", p.query_heads,
          ", kv heads = ", p.kv_heads, ", channels = ", p.channels, ", value channels = ", p.value_channels);
  require(p.query_heads <= 65535 && p.kv_heads <= 65535,
          "a GPU kernel takes up to 65535 heads: query heads = ", p.query_heads, ", kv heads = ", p.kv_heads);
  if (p.query_heads == 0) return;  // a rank beyond the heads of the grid: it has nothing to compute
  require(p.group > 0 && p.phase >= 0 && p.kv_head(p.query_heads - 1) < p.kv_heads,
          "every query head needs a kv head: query heads = ", p.query_heads, ", kv heads = ", p.kv_heads,
          ", group = ", p.group, ", phase = ", p.phase);
}

void check_forward(const Problem& p, DType accumulator, std::span<const Tile> tiles, const Rows& q, const KeyValue& kv,
                   const Partial& into) {
  check_tiles(tiles, q.tokens, kv.k.tokens);
  check_rows("q", q, p.type, 0, p.query_heads, p.channels);
  check_rows("k", kv.k, p.type, 0, p.kv_heads, p.channels);
  check_rows("v", kv.v, p.type, kv.k.tokens, p.kv_heads, p.value_channels);
  check_rows("partial out", into.out, accumulator, q.tokens, p.query_heads, p.value_channels);
  check_rows("partial top", into.top, accumulator, q.tokens, p.query_heads, 1);
  check_rows("partial sum", into.sum, accumulator, q.tokens, p.query_heads, 1);
}

void check_backward(const Problem& p, DType accumulator, std::span<const Tile> tiles, const Saved& saved,
                    const KeyValue& kv, const Gradients& into) {
  const Index queries = saved.q.tokens, keys = kv.k.tokens;
  check_tiles(tiles, queries, keys);
  check_rows("q", saved.q, p.type, 0, p.query_heads, p.channels);
  check_rows("dout", saved.dout, p.type, queries, p.query_heads, p.value_channels);
  check_rows("lse", saved.lse, accumulator, queries, p.query_heads, 1);
  check_rows("delta", saved.delta, accumulator, queries, p.query_heads, 1);
  check_rows("k", kv.k, p.type, 0, p.kv_heads, p.channels);
  check_rows("v", kv.v, p.type, keys, p.kv_heads, p.value_channels);
  check_rows("dq", into.dq, accumulator, queries, p.query_heads, p.channels);
  check_rows("dk", into.dk, accumulator, keys, p.kv_heads, p.channels);
  check_rows("dv", into.dv, accumulator, keys, p.kv_heads, p.value_channels);
}

void check_observe(const Problem& p, DType accumulator, std::span<const Tile> tiles, const Rows& q, const Rows& k,
                   const Rows& lse, const Observation& into) {
  check_tiles(tiles, q.tokens, k.tokens);
  check_rows("q", q, p.type, 0, p.query_heads, p.channels);
  check_rows("k", k, p.type, 0, p.kv_heads, p.channels);
  check_rows("lse", lse, accumulator, q.tokens, p.query_heads, 1);
  const auto optional = [&](std::string_view what, const Rows& rows, Index tokens, Index channels) {
    if (!rows.absent()) check_rows(what, rows, accumulator, tokens, p.query_heads, channels);
  };
  optional("entropy", into.entropy, q.tokens, 1);
  optional("max_probability", into.max_probability, q.tokens, 1);
  optional("sink_mass", into.sink_mass, q.tokens, 1);
  optional("mean_distance", into.mean_distance, q.tokens, 1);
  optional("received", into.received, k.tokens, 1);
  optional("top_score", into.top_score, q.tokens, into.top_score.channels);
  const Rows& top = into.top_score;
  require(top.absent() || static_cast<Index>(into.top_index.size()) >= top.tokens * top.heads * top.channels,
          "top_index must have the shape of top_score, but has ", into.top_index.size(), " elements");
  check_map(tiles, p, into);
}

}  // namespace annulus::cuda

namespace annulus {

std::string cuda_mma_refusal(const Problem& p) {
  if (p.type != DType::bf16 && p.type != DType::f16)
    return sentence("tensor cores take bf16 and f16, not ", name_of(p.type));
  if (p.channels > 256 || p.value_channels > 256)
    return sentence("channels must not exceed 256: channels = ", p.channels, ", value channels = ", p.value_channels);
  if (!(p.softmax_scale > 0)) return sentence("the softmax scale must be positive: ", p.softmax_scale);
  return {};
}

std::string cuda_wgmma_refusal(const Problem& p) {
  if (std::string refusal = cuda_mma_refusal(p); !refusal.empty()) return refusal;
  if (p.channels > 256 || p.value_channels > 256 || p.channels % 8 != 0 || p.value_channels % 8 != 0)
    return sentence("channels must be multiples of 8 up to 256: channels = ", p.channels,
                    ", value channels = ", p.value_channels);
  return {};
}

}  // namespace annulus

#pragma once
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "annulus/engine/heads.hpp"
#include "annulus/geometry/mask.hpp"

namespace annulus::app {

/// Where float64 recomputation reads its inputs, piece by piece.
struct RowSource {
  enum class What { q, k, v, dout };
  AttentionShape shape;  ///< type: what the inputs are rounded to before anything is computed
  Mask mask;
  /// Fills `into` (of shape.type) with the rows at `runs`.
  std::function<void(What, std::span<const Run>, const Rows& into)> read;
};

/// Attention of some queries in float64, written without tiles, plans, kernels or ranks, so that it can judge them.
struct Recomputed {
  std::vector<Index> rows;                       ///< the queries, ascending
  std::vector<double> out;                       ///< [row, query_head, value_channel]
  std::vector<double> lse;                       ///< [row, query_head]; -inf where nothing is seen
  std::vector<double> entropy, max_probability;  ///< [row, query_head]
  std::vector<double> top_probability;           ///< [row, query_head, top_k]
  std::vector<double> dq;                        ///< [row, query_head, channel]; only with gradients
  std::vector<double> dk, dv;                    ///< [key, kv_head, ...]; only with gradients of all rows
  double largest_score = 0;                      ///< of |s|, for error bounds
};

/// What a kernel's results may be off by, over the largest value: statistics of the scores, out, and gradients.
struct ErrorBounds {
  double statistics, out, gradient;
};
/// type: of the inputs, as they were computed with.
ErrorBounds error_bounds(std::string_view kernel, DType type, double largest_score);

struct RecomputeChoice {
  std::vector<Index> rows;
  Index top_k = 0;
  bool gradients = false;  ///< needs dout; dk and dv are complete only when rows are all queries
};

/// Reads keys and values twice with gradients, else once, a few thousand rows at a time.
Recomputed recompute(const RowSource& source, const RecomputeChoice& choice);

}  // namespace annulus::app

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
  std::vector<double> sink_mass, mean_distance;  ///< [row, query_head]
  std::vector<double> top_probability;           ///< [row, query_head, top_k]; 0 where fewer keys are seen
  std::vector<double> claimed_probability;  ///< as top_probability, of the keys claimed; NaN where that is no such key
  std::vector<double> received;             ///< [key, query_head]; only with columns of all rows
  std::vector<double> block_mass;           ///< [query_head, query_block, key_block], likewise
  std::vector<double> dq;                   ///< [row, query_head, channel]; only with gradients
  std::vector<double> dk, dv;               ///< [key, kv_head, ...]; only with gradients of all rows
  double largest_score = 0;                 ///< of |s|, for error bounds
  /// What sums are made of, which may cancel: the largest sum of magnitudes, |p v| and so on, that any element has.
  struct Magnitudes {
    double out = 0, dq = 0, dk = 0, dv = 0;
  } magnitudes;
};

/// What a kernel's results may be off by: statistics of the scores; out, over the largest sum of |p v|; gradients, over
/// the largest gradient and, what their terms are off by, over the largest sum of magnitudes.
struct ErrorBounds {
  double statistics, out, gradient, gradient_terms;
  double of_gradient(double largest, double magnitude) const { return gradient * largest + gradient_terms * magnitude; }
};
/// type: of the inputs, as they were computed with.
ErrorBounds error_bounds(std::string_view kernel, DType type, double largest_score);

struct RecomputeChoice {
  std::vector<Index> rows;
  Index top_k = 0, sink_tokens = 0;
  std::vector<Index> claims =
      {};                  ///< keys that are said to be the top ones [row, query_head, top_k], -1: none; or empty
  bool gradients = false;  ///< needs dout; dk and dv are complete only when rows are all queries
  bool columns = false;    ///< what keys receive, when rows are all queries
  Index block_tokens = 0;  ///< of block_mass, with columns; 0: none
};

/// Reads keys and values once, and once more for columns and for gradients each, a few thousand rows at a time.
Recomputed recompute(const RowSource& source, const RecomputeChoice& choice);

}  // namespace annulus::app

#pragma once
#include <optional>

#include "annulus/plan/cost.hpp"

namespace annulus {

/// What the passes of a job move for every row that visits a rank, and what they take beside the steps of the plan.
struct Passes {
  Passes(const Schedule& job, const Prices& prices);

  struct Pass {
    Index block_bytes = 0, sum_bytes = 0;  ///< of a row of a block, and of the sums that follow it
    double fixed_seconds = 0;              ///< head exchanges, passes over the own rows, the start
  };
  Pass forward;
  std::optional<Pass> backward;  ///< not for a tree: its gradients are those of a ring
  Index partial_row_bytes = 0;   ///< out, top and sum of a query
  Index exchange_bytes = 0, exchange_total = 0, exchange_node_bytes = 0;  ///< as in Estimate
  Index row_bytes() const;

 private:
  bool tree_;
};

}  // namespace annulus

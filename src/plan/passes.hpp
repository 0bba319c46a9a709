#pragma once
#include <optional>
#include <vector>

#include "annulus/plan/cost.hpp"

namespace annulus {

/// What the passes of a job move for every row that visits a rank, and what they take beside the steps of the plan.
struct Passes {
  Passes(const Schedule& job, const Prices& prices);

  /// One all-to-all inside a seat.
  struct Exchange {
    bool keys = false;             ///< of rows of keys, else of queries
    std::vector<Index> row_bytes;  ///< of each lane's heads: what others send it of each of their rows, and get back
    double seconds = 0;            ///< with the copies that cut rows by heads
  };
  struct Pass {
    Index block_bytes = 0,
          sum_bytes = 0;     ///< of a row of a block, and of the sums that follow it, at the largest share
    double own_seconds = 0;  ///< passes over the own rows, the start
    std::vector<Exchange> before = {}, after = {};
    double fixed_seconds() const;  ///< all that is not in the steps
  };
  Pass forward;
  std::optional<Pass> backward;  ///< not for a tree: its gradients are those of a ring
  Index partial_row_bytes = 0;   ///< out, top and sum of a query
  Index exchange_bytes = 0, exchange_total = 0, exchange_node_bytes = 0;  ///< as in Estimate
  Index row_bytes() const;
  std::vector<Index> shares;  ///< by lane: heads of rows that travel between seats
  /// What all lanes of a seat move where the largest share moves so many bytes.
  Index in_all_lanes(Index largest) const;

 private:
  bool tree_;
};

}  // namespace annulus

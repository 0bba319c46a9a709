#pragma once
#include <string>
#include <vector>

#include "annulus/plan/plan.hpp"

namespace annulus {

/// What a schedule is priced by: counts of what the plan says, times what one of each takes.
struct Prices {
  Index query_heads = 1, kv_heads = 1;
  Index channels = 64, value_channels = 64;
  Index element_bytes = 4;
  bool backward = false;
  int ranks_per_node = 1 << 30;         ///< so many neighbouring ranks share a node
  double operations_per_second = 5e10;  ///< nominal: a few CPU cores
  double bytes_per_second = 5e9;        ///< nominal: memory copies and good networks alike
  double seconds_per_step = 2e-5;       ///< nominal: latency of a batch
  double hidden = 0;  ///< share of the exchange that goes on beside computing: none where a copy is a core's work
};

/// One step of all seats.
struct StepSum {
  Index pairs = 0, most_pairs = 0;  ///< in all, and of the busiest seat
  Index rows = 0, most_rows = 0;    ///< rows that arrive for the next step: in all, and at one seat
};

/// Exact counts of one schedule, and the seconds that its steps take at the given prices: each seat goes on when it has
/// computed and its next block is there, and a block leaves when its sender is in that step, too.
struct Estimate {
  Index steps = 0;
  Index pairs = 0;                 ///< visible pairs, all seats
  Index path_pairs = 0;            ///< sum over steps of the busiest seat's pairs: nobody can be faster
  Index most_pairs = 0;            ///< of the busiest seat
  Index buffer_rows = 0;           ///< most rows that visit a seat at once
  Index row_bytes = 0;             ///< what travels for every row that visits a rank, sums that follow it included
  Index block_bytes_received = 0;  ///< bytes between seats, the rank that receives most
  Index exchange_bytes = 0;        ///< bytes of the head exchange, the rank that receives most
  Index total_bytes = 0;           ///< bytes between seats, received by all ranks
  Index node_bytes = 0;            ///< those of them that cross from one node to another
  Index whole_bytes = 0;           ///< what a ring that carries whole K/V blocks to everybody would move, same passes
  double nominal_seconds = 0;
  double compute_seconds = 0;  ///< of the busiest seat; the rest of nominal_seconds is exchange and waiting
  std::vector<StepSum> by_step;
  /// Time lost to imbalance: path_pairs over the ideal; 1.0 is ideal.
  double imbalance(int seats) const {
    return pairs == 0 ? 1.0 : static_cast<double>(path_pairs) * seats / static_cast<double>(pairs);
  }
};
/// Streams through steps and seats: memory grows with the number of seats, and no plan is made.
Estimate estimate(const Schedule& schedule, const Prices& prices);

/// Bytes a rank needs at its peak, forward (and backward), without what the caller keeps besides.
struct Footprint {
  Index inputs = 0;   ///< own q, k, v (and dout)
  Index results = 0;  ///< out, lse (and dq, dk, dv), in f32
  Index blocks = 0;   ///< two visiting blocks, and what gradients add
  Index heads = 0;    ///< copies made by the head exchange
  Index total() const { return inputs + results + blocks + heads; }
};
/// Of a rank with the most tokens of all and `buffer_rows` visiting at once (Estimate::buffer_rows).
Footprint footprint(const Schedule& schedule, Index buffer_rows, const Prices& prices);

/// Heads of the largest share when `lanes` ranks split them; K/V heads are replicated where a share cuts a group.
Index largest_query_share(const Prices& prices, int lanes);
Index largest_kv_share(const Prices& prices, int lanes);

/// The grid and partition that `auto` takes, with the reason as a phrase. Tries ring, Ulysses and hybrids on the sensible
/// partitions and takes the one with the least nominal time; above 64 ranks it decides by the mask alone.
/// A fixed grid or partition (non-empty) is kept.
struct Choice {
  Grid grid;
  std::string partition, reason;
};
Choice choose(const Mask& mask, int ranks, const Prices& prices, const Grid* grid, std::string_view partition);

}  // namespace annulus

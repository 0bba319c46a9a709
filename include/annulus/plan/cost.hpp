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
  double operations_per_second = 5e10;  ///< nominal: a few CPU cores
  double bytes_per_second = 5e9;        ///< nominal: memory copies and good networks alike
  double seconds_per_step = 2e-5;       ///< nominal: latency of a batch
};

/// Exact counts of one schedule, and nominal seconds to compare schedules by.
struct Estimate {
  Index steps = 0;
  Index pairs = 0;                 ///< visible pairs, all seats
  Index path_pairs = 0;            ///< sum over steps of the busiest seat's pairs: nobody can be faster
  Index most_pairs = 0;            ///< of the busiest seat
  Index block_bytes_received = 0;  ///< K/V bytes, the rank that receives most
  Index exchange_bytes = 0;        ///< bytes of the head exchange, the rank that receives most
  Index total_bytes = 0;           ///< K/V bytes received by all ranks
  double nominal_seconds = 0;
  /// Time lost to imbalance: path_pairs over the ideal; 1.0 is ideal.
  double imbalance(int seats) const {
    return pairs == 0 ? 1.0 : static_cast<double>(path_pairs) * seats / static_cast<double>(pairs);
  }
};
Estimate estimate(const Schedule& schedule, const Prices& prices);

/// Bytes a rank needs at its peak, forward (and backward), without what the caller keeps besides.
struct Footprint {
  Index inputs = 0;   ///< own q, k, v (and dout)
  Index results = 0;  ///< out, lse (and dq, dk, dv), in f32
  Index blocks = 0;   ///< two visiting blocks, and what gradients add
  Index heads = 0;    ///< copies made by the head exchange
  Index total() const { return inputs + results + blocks + heads; }
};
Footprint footprint(const Schedule& schedule, Rank rank, const Prices& prices);

/// The grid and partition that `auto` takes, with the reason as a phrase. Tries ring, Ulysses and hybrids on the sensible
/// partitions and takes the one with the least nominal time; above 64 ranks it decides by the mask alone.
/// A fixed grid or partition (non-empty) is kept.
struct Choice {
  Grid grid;
  std::string partition, reason;
};
Choice choose(const Mask& mask, int ranks, const Prices& prices, const Grid* grid, std::string_view partition);

}  // namespace annulus

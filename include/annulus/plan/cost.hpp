#pragma once
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annulus/plan/plan.hpp"

namespace annulus {

struct Prediction;

/// A message of b bytes takes latency(b) + b / bytes_per_second.
struct LinkPrice {
  double latency_seconds = 2e-5, bytes_per_second = 5e9;
  /// How fast messages go on while their ranks compute, as a share of what they do alone: 0 where a copy is a core's work,
  /// 1 where no core is needed.
  double hidden = 0;
  bool at_once = true;  ///< whoever comes last copies before it computes; else a message also waits for both to be done
  /// Messages of so many bytes and more are announced, and begin when they are asked for: one round trip more.
  double long_bytes = std::numeric_limits<double>::infinity(), long_latency_seconds = 0;
  double latency(double bytes) const { return bytes < long_bytes ? latency_seconds : long_latency_seconds; }
};

/// A kernel's rate on a tile of `tokens` queries x `tokens` keys, one rank at work on each core (or GPU) of the node.
struct RatePoint {
  double tokens = 0, operations_per_second = 0;
};
/// Of one pass. full: every query sees every key; causal: those up to itself. Ascending in tokens; not both empty.
struct Rates {
  std::vector<RatePoint> full, causal;
};
/// Between points: a straight line over the logarithm of the tokens; outside: the nearest point.
double rate_at(std::span<const RatePoint> points, double tokens);

/// What a schedule is priced by: counts of what the plan says, times what one of each takes. The numbers here are nominal:
/// a few CPU cores.
struct Prices {
  Index query_heads = 1, kv_heads = 1;
  Index channels = 64, value_channels = 64;
  Index element_bytes = 4;
  bool backward = false;           ///< the backward pass, too
  int ranks_per_node = 1 << 30;    ///< so many neighbouring ranks share a node
  int workers_per_node = 1 << 30;  ///< so many ranks of a node compute at full speed; more share it
  int network_ports = 1 << 30;     ///< so many ranks of a node use the network at full speed; more share it
  Rates forward{{{1, 5e10}}, {}}, backward_rates{{{1, 5e10}}, {}};
  LinkPrice near{}, far{};  ///< between ranks of one node, and between nodes
  double memory_bytes_per_second =
      std::numeric_limits<double>::infinity();  ///< of passes over memory: clear, add, copy
  double key_bytes_per_second =
      std::numeric_limits<double>::infinity();  ///< of keys and values that few queries meet: no faster than they are read
  double seconds_per_pass = 0;                  ///< what a pass takes besides
  Index most_looks = 300'000'000;  ///< Planner::looks(), some seconds; beyond, a fifth of it, of sampled steps
  Index memory_limit = std::numeric_limits<Index>::max();  ///< bytes of a rank: choose() keeps to it, if anything does
  std::vector<double> weights =
      {};  ///< relative speeds of the ranks (empty: all equal); the rates are those of their mean
};
/// What each seat takes for one second's work of a rank of mean speed. Heads are shared out evenly, so a seat is as slow as its
/// slowest rank.
std::vector<double> seat_slowness(const Grid& grid, const Prices& prices);

/// One step of all seats.
struct StepSum {
  Index pairs = 0, most_pairs = 0;  ///< in all, and of the busiest seat
  double longest = 0;               ///< most pairs of a seat times its slowness
  Index rows = 0, most_rows = 0;    ///< rows that arrive for the next step: in all, and at one seat
};

/// What the simulation says of one pass.
struct PassTime {
  double seconds = 0;
  double compute_seconds = 0;  ///< of the rank that computes longest
};

/// Exact counts of one schedule, and the seconds that it takes at the given prices.
struct Estimate {
  Index steps = 0;
  Index pairs = 0;                 ///< visible pairs, all seats
  double path_pairs = 0;           ///< sum over steps of StepSum::longest, as if all waited for the slowest in each
  double longest = 0;              ///< most pairs of a seat times its slowness, all steps
  Index buffer_rows = 0;           ///< most rows that visit a seat at once
  Index row_bytes = 0;             ///< what travels for every row that visits a rank, sums that follow it included
  Index backward_row_bytes = 0;    ///< of it, in the backward pass
  Index block_bytes_received = 0;  ///< bytes between seats, sums included, the rank that receives most
  Index exchange_bytes = 0;        ///< bytes of the head exchange, the rank that receives most
  Index total_bytes = 0;           ///< bytes between seats, received by all ranks
  Index node_bytes = 0;            ///< those of them that cross from one node to another
  Index exchange_total = 0;        ///< bytes of the head exchange, received by all ranks
  Index exchange_node_bytes = 0;   ///< those of them that cross from one node to another
  double whole_bytes = 0;          ///< what a ring that carries whole K/V blocks to everybody would move, same passes
  int sampled_every = 1;           ///< of so many steps one was simulated, and stands for all of them
  PassTime forward, backward;      ///< backward: zero unless it is asked for
  std::vector<StepSum> by_step;

  double seconds() const { return forward.seconds + backward.seconds; }
  double compute_seconds() const { return forward.compute_seconds + backward.compute_seconds; }
  /// Share of the time in which even the rank that computes longest does not compute.
  double exposed() const { return seconds() > 0 ? 1 - compute_seconds() / seconds() : 0; }
  Index network_bytes() const { return node_bytes + exchange_node_bytes; }
  Index inside_bytes() const { return total_bytes + exchange_total - network_bytes(); }
  /// Over the time in which every rank, computing all the time at its own speed, would have done: if all waited for the slowest
  /// in each step, and if nobody waited before the end. Both are 1 where the work is shared out evenly.
  double imbalance(int seats) const { return pairs == 0 ? 1.0 : path_pairs * seats / static_cast<double>(pairs); }
  double imbalance_in_all(int seats) const { return pairs == 0 ? 1.0 : longest * seats / static_cast<double>(pairs); }
};
/// Simulates the very plans that the engine executes, step by step and seat by seat: a seat goes on when it has computed
/// and its next block is there, and a block leaves when its sender is in that step, too. Memory grows with the number of
/// seats, time with the pairs of seats that see each other, and no plan is made. Exact up to Prices::most_looks of those pairs;
/// beyond (17,320 seats that all see each other), steps are sampled, and counts of rows and bytes are close, not exact.
/// prediction: not null: filled for as many of the first ranks as it has, empty before; it then takes memory, and time, for each of
/// their steps and messages. Throws Error (usage) when it is wanted and steps_are_sampled().
Estimate estimate(const Schedule& schedule, const Prices& prices, Prediction* prediction = nullptr);
bool steps_are_sampled(const Schedule& schedule, const Prices& prices);
/// A time that no schedule of these seats can beat: the pairs of the seat that computes longest, at the best rate.
double least_seconds(const Schedule& schedule, const Prices& prices);

/// Bytes a rank needs at its peak, forward (and backward), without what the caller keeps besides and without what kernels and
/// devices keep for themselves: on CPUs up to 32 MiB of packed keys and 64 MiB for the next pass.
struct Footprint {
  Index inputs = 0;   ///< own q, k, v (and dout)
  Index results = 0;  ///< out, lse (and dq, dk, dv), in f32
  Index blocks = 0;   ///< two visiting blocks, and what gradients add
  Index heads = 0;    ///< copies made by the head exchange
  Index total() const { return inputs + results + blocks + heads; }
};
/// Of a rank with the most tokens of all and `buffer_rows` visiting at once (Estimate::buffer_rows).
Footprint footprint(const Schedule& schedule, Index buffer_rows, const Prices& prices);

/// Heads of each share when `lanes` ranks split them, and of the largest; K/V heads are replicated where a share cuts a group.
std::vector<Index> query_shares(const Prices& prices, int lanes);
std::vector<Index> kv_shares(const Prices& prices, int lanes);
/// What travels of each query in backward where queries travel: q, dout, lse and delta, in whole words of eight bytes.
Index saved_row_bytes(const Prices& prices, Index query_share);
Index largest_query_share(const Prices& prices, int lanes);
Index largest_kv_share(const Prices& prices, int lanes);

/// The most memory of a rank that `auto` spends on speed, five times that of a ring over the same shards: all-gather and
/// tree hold many blocks at once.
Index most_memory(const Schedule& ring, const Prices& prices);

/// The grid and partition that `auto` takes, with the reason as a phrase: the least simulated time of all strategies and all
/// even splits of heads on the sensible partitions, among those that keep to most_memory(). Of those within 2 % of it the
/// plainest is taken, unless another has no more steps, bytes and memory. Candidates whose least_seconds are too long already
/// are not simulated; where steps are sampled at first, those that may win are simulated again, as estimate() does; above
/// 1,024 ranks the partition `balanced` is not tried.
/// Those beyond Prices::memory_limit are passed over; where nothing else is left, the least of them is taken.
/// A fixed grid or partition (non-empty) is kept. Where ranks have weights only `balanced` candidates use them.
/// looked: told for every candidate how many there are.
struct Choice {
  Grid grid;
  std::string partition, reason;
  std::vector<std::pair<Grid, Estimate>> priced = {};  ///< what estimate() says of grids on this partition, where it was asked
};
Choice choose(const Mask& mask, int ranks, const Prices& prices, const Grid* grid, std::string_view partition,
              const std::function<void(Index of)>& looked = {});

}  // namespace annulus

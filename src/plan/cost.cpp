#include "annulus/plan/cost.hpp"

#include <algorithm>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"

namespace annulus {
namespace {

// Heads of the largest share, K/V heads replicated where a share cuts a group.
Index largest_query_share(const Prices& p, int lanes) { return ceil_div(p.query_heads, lanes); }
Index largest_kv_share(const Prices& p, int lanes) {
  const Index group = p.query_heads / p.kv_heads;
  Index most = 0;
  for (Index lane = 0; lane < std::min<Index>(lanes, p.query_heads); ++lane) {
    const Index begin = p.query_heads * lane / lanes, end = p.query_heads * (lane + 1) / lanes;
    most = std::max(most, end > begin ? ceil_div(end, group) - begin / group : 0);
  }
  return most;
}

}  // namespace

Estimate estimate(const Schedule& job, const Prices& p) {
  Estimate e;
  const int lanes = job.grid.heads;
  const Index width = p.channels + p.value_channels;
  const Index row_bytes = largest_kv_share(p, lanes) * width * p.element_bytes;
  e.steps = static_cast<Index>(job.plans.front().steps.size());
  std::vector<Index> received(job.plans.size()), computed(job.plans.size());
  double seconds = 0;
  const double operations_per_pair = (p.backward ? 7.0 : 2.0) * static_cast<double>(width * largest_query_share(p, lanes));
  for (std::size_t s = 0; s < static_cast<std::size_t>(e.steps); ++s) {
    Index slowest = 0, most_rows = 0;
    for (std::size_t r = 0; r < job.plans.size(); ++r) {
      const Step& step = job.plans[r].steps[s];
      const Index work = pairs(step.tiles), rows = step.arrive ? count(step.arrive->rows) : 0;
      e.pairs += work;
      computed[r] += work;
      received[r] += rows;
      slowest = std::max(slowest, work);
      most_rows = std::max(most_rows, rows);
    }
    e.path_pairs += slowest;
    seconds += static_cast<double>(slowest) * operations_per_pair / p.operations_per_second +
               static_cast<double>(most_rows * row_bytes) / p.bytes_per_second + p.seconds_per_step;
  }
  for (std::size_t r = 0; r < received.size(); ++r) {
    e.block_bytes_received = std::max(e.block_bytes_received, received[r] * row_bytes);
    e.most_pairs = std::max(e.most_pairs, computed[r]);
    e.total_bytes += received[r] * row_bytes * lanes;
  }
  if (lanes > 1) {  // q, k, v in and out back: all but the own share of the heads
    const Index rows = job.queries.largest(), key_rows = job.keys.largest();
    const Index there = rows * p.query_heads * (p.channels * p.element_bytes + 4 * p.value_channels);
    e.exchange_bytes = (there + key_rows * p.kv_heads * width * p.element_bytes) / lanes * (lanes - 1);
    seconds += static_cast<double>(e.exchange_bytes) / p.bytes_per_second + 2 * p.seconds_per_step;
  }
  e.nominal_seconds = seconds;
  return e;
}

Footprint footprint(const Schedule& job, Rank rank, const Prices& p) {
  const Plan& plan = job.plans[static_cast<std::size_t>(job.seat_of(rank))];
  const Index width = p.channels + p.value_channels, rows = job.queries.rows(rank), keys = job.keys.rows(rank);
  const Index lanes = job.grid.heads, query_share = largest_query_share(p, job.grid.heads);
  const Index block_row = largest_kv_share(p, job.grid.heads) * width;
  Footprint f;
  f.inputs = (rows * p.query_heads * p.channels + keys * p.kv_heads * width) * p.element_bytes;
  f.results = rows * p.query_heads * (p.value_channels + 2) * 4;
  f.blocks = 2 * plan.buffer_rows() * block_row * p.element_bytes;
  if (lanes > 1)
    f.heads = plan.query_rows * query_share * (p.channels * p.element_bytes + 4 * p.value_channels) +
              2 * plan.key_rows * block_row * p.element_bytes;
  if (!p.backward) return f;
  f.inputs += rows * p.query_heads * p.value_channels * p.element_bytes;
  f.results += 4 * (2 * rows * p.query_heads * p.channels + keys * p.kv_heads * width);
  f.blocks += 4 * block_row * (3 * plan.buffer_rows() + 2 * plan.key_rows);
  return f;
}

Choice choose(const Mask& mask, int ranks, const Prices& prices, const Grid* grid, std::string_view partition) {
  constexpr int most_ranks_tried = 64;
  constexpr double worth_it = 0.98;  // a more elaborate choice must win by 2 %
  const bool keep_partition = !partition.empty() && partition != "auto";
  std::vector<Grid> grids;
  if (grid != nullptr) {
    grids = {*grid};
  } else {
    for (int heads = 1; heads <= ranks; ++heads)  // whole heads only: uneven shares are allowed, but never better
      if (ranks % heads == 0 && prices.query_heads % heads == 0 && prices.kv_heads % heads == 0)
        grids.push_back({heads, ranks / heads, 1});
  }
  std::vector<std::string> partitions{"contiguous", "zigzag", "striped", "balanced"};
  if (keep_partition) partitions = {std::string(partition)};
  if (ranks > most_ranks_tried) {
    const double density = static_cast<double>(mask.pairs()) /
                           std::max(1.0, static_cast<double>(mask.queries()) * static_cast<double>(mask.keys()));
    const bool triangle = density > 0.3 && density < 0.7;
    return {grids.front(), keep_partition ? std::string(partition) : triangle ? "zigzag" : "contiguous",
            "by the mask's density; the grid is the first that fits"};
  }
  Choice best;
  double least = 0;
  for (const Grid& candidate : grids)
    for (const std::string& name : partitions) {
      const Schedule job = make_schedule(candidate, name, mask);
      const Estimate e = estimate(job, prices);
      if (!best.partition.empty() && e.nominal_seconds >= worth_it * least) continue;
      least = e.nominal_seconds;
      best = {candidate, name,
              sentence("least nominal time of ", grids.size() * partitions.size(), " candidates: ", e.steps, " step",
                       e.steps == 1 ? "" : "s", ", imbalance ", static_cast<double>(static_cast<Index>(e.imbalance(candidate.seats()) * 1000)) / 1000)};
    }
  return best;
}

}  // namespace annulus

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/plan/cost.hpp"

namespace annulus {
namespace {

constexpr double worth_it = 0.98;          // a more elaborate choice must win by 2 %
constexpr int most_ranks_balanced = 1024;  // dealing blocks to more ranks takes longer than simulating them
constexpr Index enough_looks = 4'000'000;  // per candidate: a tenth of a second
constexpr Index roomy = 5;                 // times a ring's memory: what eight blocks of all heads at once need

struct Candidate {
  Schedule job;
  std::string partition;
  Index most_bytes = 0;
  double least = 0;
};

std::span<const double> weights_for(std::string_view partition, const Prices& prices) {
  return partition == "balanced" ? std::span<const double>(prices.weights) : std::span<const double>{};
}

// Every row of the table of strategies, and all even splits of heads. The plainer a grid is, the earlier it comes.
std::vector<Grid> grids_for(int ranks, const Prices& prices) {
  std::vector<Grid> grids{{1, ranks, 1}};
  if (ranks == 1) return grids;
  const auto add = [&](const Grid& grid) {
    if (std::ranges::find(grids, grid) == grids.end()) grids.push_back(grid);
  };
  for (int heads = 2; heads <= ranks; ++heads)
    if (ranks % heads == 0 && prices.query_heads % heads == 0 && prices.kv_heads % heads == 0)
      add({heads, ranks / heads, 1});
  for (const Strategy& strategy : strategies()) {
    try {
      add(strategy.grid({ranks, prices.ranks_per_node, prices.query_heads, prices.kv_heads}));
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): the table tells why there is none
    }
  }
  return grids;
}

}  // namespace

Index most_memory(const Schedule& ring, const Prices& prices) {
  return roomy * footprint(ring, ring.keys.largest(), prices).total();
}

Choice choose(const Mask& mask, int ranks, const Prices& prices, const Grid* grid, std::string_view partition) {
  std::vector<std::string> partitions{"contiguous", "zigzag", "striped"};
  if (ranks <= most_ranks_balanced) partitions.emplace_back("balanced");
  if (!partition.empty() && partition != "auto") partitions = {std::string(partition)};
  const std::vector<Grid> grids = grid != nullptr ? std::vector<Grid>{*grid} : grids_for(ranks, prices);
  std::vector<Candidate> candidates;
  for (const Grid& candidate : grids)
    for (const std::string& name : partitions)
      candidates.push_back({make_schedule(candidate, name, mask, weights_for(name, prices)), name});
  for (std::size_t i = 0; i < candidates.size() && candidates.size() > 1; ++i) {
    const Schedule& ring = candidates[i % partitions.size()].job;  // what a fixed grid needs is not questioned
    candidates[i].most_bytes = grid != nullptr ? std::numeric_limits<Index>::max() : most_memory(ring, prices);
    candidates[i].least = least_seconds(candidates[i].job, prices);
  }
  // few ranks: in order, so that the plainest of equals wins; many: what is quickly simulated first, as its time rules others out
  if (ranks > 64)
    std::ranges::stable_sort(candidates, {},
                             [](const Candidate& c) { return std::pair(c.job.planner.seats(), c.least); });
  Prices quick = prices;
  quick.most_looks = std::min(prices.most_looks, enough_looks);
  std::optional<Estimate> best;
  const Candidate* winner = nullptr;
  std::size_t simulated = 0, too_large = 0;
  for (const Candidate& c : candidates) {
    if (best && c.least >= worth_it * best->seconds()) continue;
    ++simulated;
    Estimate e = estimate(c.job, quick);
    if (best && e.seconds() >= worth_it * best->seconds()) continue;
    if (candidates.size() > 1 && footprint(c.job, e.buffer_rows, prices).total() > c.most_bytes) {
      ++too_large;
      continue;
    }
    best = std::move(e);
    winner = &c;
  }
  std::string reason =
      candidates.size() == 1 ? "the only candidate" : sentence("least time of ", candidates.size(), " candidates");
  if (simulated < candidates.size())
    reason += sentence(", ", candidates.size() - simulated, " of which cannot be 2 % faster whatever they exchange");
  if (too_large > 0)
    reason += sentence(", ", too_large, " faster, in more than ", roomy, " times the memory of a ring");
  const int seats = winner->job.planner.seats();
  const auto rounded = [](double ratio) { return static_cast<double>(std::llround(ratio * 1000)) / 1000; };
  reason +=
      sentence(": ", best->steps, best->steps == 1 ? " step" : " steps", ", imbalance ",
               rounded(best->imbalance(seats)), " step by step, ", rounded(best->imbalance_in_all(seats)), " in all");
  return {winner->job.grid, winner->partition, reason};
}

}  // namespace annulus

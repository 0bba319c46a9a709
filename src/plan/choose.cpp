#include <algorithm>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/plan/cost.hpp"

namespace annulus {
namespace {

constexpr double worth_it = 0.98;          // a more elaborate choice must win by 2 %
constexpr int most_ranks_balanced = 1024;  // dealing blocks to more ranks takes longer than simulating them
constexpr Index enough_looks = 4'000'000;  // per candidate: a tenth of a second

struct Candidate {
  Schedule job;
  std::string partition;
  double least = 0;
};

std::vector<Grid> grids_for(const Mask& mask, int ranks, const Prices& prices) {
  std::vector<Grid> grids;
  for (int heads = 1; heads <= ranks; ++heads)  // whole heads only: uneven shares are allowed, but never better
    if (ranks % heads == 0 && prices.query_heads % heads == 0 && prices.kv_heads % heads == 0)
      grids.push_back({heads, ranks / heads, 1});
  if (prices.ranks_per_node < ranks) {
    try {
      const Strategy& rings = find_strategy("double-ring");
      grids.push_back(rings.grid({ranks, prices.ranks_per_node, prices.query_heads, prices.kv_heads}));
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): a prime number of ranks has none
    }
  }
  if (ranks > 1 && mask.queries() < mask.keys()) {  // a new part of a sequence against a long cache
    grids.push_back({1, ranks, 1, Travel::queries});
    grids.push_back({1, ranks, 1, Travel::tree});
  }
  return grids;
}

}  // namespace

Choice choose(const Mask& mask, int ranks, const Prices& prices, const Grid* grid, std::string_view partition) {
  std::vector<std::string> partitions{"contiguous", "zigzag", "striped"};
  if (ranks <= most_ranks_balanced) partitions.emplace_back("balanced");
  if (!partition.empty() && partition != "auto") partitions = {std::string(partition)};
  const std::vector<Grid> grids = grid != nullptr ? std::vector<Grid>{*grid} : grids_for(mask, ranks, prices);
  std::vector<Candidate> candidates;
  for (const Grid& candidate : grids)
    for (const std::string& name : partitions) candidates.push_back({make_schedule(candidate, name, mask), name});
  if (candidates.size() > 1)
    for (Candidate& c : candidates) c.least = least_seconds(c.job, prices);
  // few ranks: in order, so that the plainest of equals wins; many: what is quickly simulated first, as its time rules others out
  if (ranks > 64)
    std::ranges::stable_sort(candidates, {},
                             [](const Candidate& c) { return std::pair(c.job.planner.seats(), c.least); });
  Prices quick = prices;
  quick.most_looks = std::min(prices.most_looks, enough_looks);
  std::optional<Estimate> best;
  const Candidate* winner = nullptr;
  std::size_t simulated = 0;
  for (const Candidate& c : candidates) {
    if (best && c.least >= worth_it * best->seconds()) continue;
    ++simulated;
    Estimate e = estimate(c.job, quick);
    if (best && e.seconds() >= worth_it * best->seconds()) continue;
    best = std::move(e);
    winner = &c;
  }
  std::string reason =
      sentence("least time of ", candidates.size(), candidates.size() == 1 ? " candidate" : " candidates");
  if (simulated < candidates.size())
    reason += sentence(", ", candidates.size() - simulated, " of which are too slow even without exchange");
  const auto thousandths = static_cast<Index>(best->imbalance(winner->job.planner.seats()) * 1000);
  reason += sentence(": ", best->steps, best->steps == 1 ? " step" : " steps", ", imbalance ",
                     static_cast<double>(thousandths) / 1000);
  return {winner->job.grid, winner->partition, reason};
}

}  // namespace annulus

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/plan/cost.hpp"

namespace annulus {
namespace {

constexpr double worth_it = 0.98;          // a more elaborate choice must win by 2 %
constexpr double hopeless = 1.2;           // times the least: sampling steps is not so far off
constexpr int most_ranks_balanced = 1024;  // dealing blocks to more ranks takes longer than simulating them
constexpr Index enough_looks = 4'000'000;  // per candidate: a tenth of a second
constexpr Index roomy_times = 5;           // times a ring's memory: what eight blocks of all heads at once need

struct Candidate {
  Schedule job;
  std::string partition;
  Index most_bytes = std::numeric_limits<Index>::max();
  Index limit = std::numeric_limits<Index>::max();
  double least = 0;
  std::optional<Estimate> estimate = {};
  bool in_full = false;  // simulated as estimate() does
  Index memory = 0;

  double seconds() const { return estimate->seconds(); }
  bool fits() const { return estimate && memory <= std::min(most_bytes, limit); }
  std::array<Index, 3> burden() const {
    return {estimate->steps, estimate->total_bytes + estimate->exchange_total, memory};
  }
};

void simulate(Candidate& c, const Prices& prices, Index most_looks) {
  Prices these = prices;
  these.most_looks = std::min(prices.most_looks, most_looks);
  c.estimate = estimate(c.job, these);
  c.in_full = c.estimate->sampled_every == 1 || these.most_looks == prices.most_looks;
  c.memory = footprint(c.job, c.estimate->buffer_rows, prices).total();
}

double least_time(const std::vector<Candidate>& candidates) {
  double least = std::numeric_limits<double>::infinity();
  for (const Candidate& c : candidates)
    if (c.fits()) least = std::min(least, c.seconds());
  return least;
}

// No more of anything, and less of something.
bool spares(const Candidate& a, const Candidate& b) {
  const auto mine = a.burden(), other = b.burden();
  return mine != other && std::ranges::equal(mine, other, std::less_equal{});
}

// Of those about as fast as the fastest the plainest, or who spares something.
Candidate& winner_of(std::vector<Candidate>& candidates) {
  const double enough = least_time(candidates) / worth_it;
  Candidate* best = nullptr;
  for (Candidate& c : candidates)
    if (c.fits() && c.seconds() <= enough && (best == nullptr || spares(c, *best))) best = &c;
  return *best;
}

// Where nothing fits.
void keep_smallest(std::vector<Candidate>& candidates) {
  const auto smallest =
      std::ranges::min_element(candidates, {}, [](const Candidate& c) { return std::pair(c.memory, c.seconds()); });
  std::vector<Candidate> kept{std::move(*smallest)};
  kept.front().most_bytes = kept.front().limit = std::numeric_limits<Index>::max();
  candidates = std::move(kept);
}

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

std::vector<Candidate> candidates_for(const Mask& mask, int ranks, const Prices& prices, const Grid* grid,
                                      std::string_view partition) {
  std::vector<std::string> partitions{"contiguous", "zigzag", "striped"};
  if (ranks <= most_ranks_balanced) partitions.emplace_back("balanced");
  if (!partition.empty() && partition != "auto") partitions = {std::string(partition)};
  const std::vector<Grid> grids = grid != nullptr ? std::vector<Grid>{*grid} : grids_for(ranks, prices);
  std::vector<Candidate> candidates;
  for (const Grid& candidate : grids)
    for (const std::string& name : partitions)
      candidates.push_back({make_schedule(candidate, name, mask, weights_for(name, prices)), name});
  for (std::size_t i = 0; i < candidates.size() && candidates.size() > 1; ++i) {
    // what a fixed grid needs is not questioned
    if (grid == nullptr) candidates[i].most_bytes = most_memory(candidates[i % partitions.size()].job, prices);
    candidates[i].least = least_seconds(candidates[i].job, prices);
    candidates[i].limit = prices.memory_limit;
  }
  return candidates;
}

// Of many ranks what is quickly simulated comes first, as its time rules others out.
std::vector<Candidate*> order_of(std::vector<Candidate>& candidates, int ranks) {
  constexpr int many = 64;
  std::vector<Candidate*> order;
  for (Candidate& c : candidates) order.push_back(&c);
  if (ranks > many)
    std::ranges::stable_sort(order, {}, [](const Candidate* c) { return std::pair(c->job.planner.seats(), c->least); });
  return order;
}

std::string reason_for(const Candidate& winner, const std::vector<Candidate>& candidates) {
  const Estimate& e = *winner.estimate;
  int ruled_out = 0, roomy = 0, large = 0, about = 0;
  for (const Candidate& c : candidates) {
    const bool faster = c.estimate && c.seconds() < winner.seconds();
    ruled_out += c.estimate ? 0 : 1;
    large += faster && c.memory > c.limit ? 1 : 0;
    roomy += faster && !c.fits() && c.memory <= c.limit ? 1 : 0;
    about += faster && c.fits() ? 1 : 0;
  }
  std::string reason = candidates.size() == 1 ? "the only candidate"
                                              : sentence(about > 0 ? "within 2 % of the " : "", "least time of ",
                                                         candidates.size(), " candidates");
  if (ruled_out > 0) reason += sentence(", ", ruled_out, " of which cannot be as fast whatever they exchange");
  if (about > 0) reason += sentence(", ", about, " faster, but not plainer or with more steps, bytes or memory");
  if (large > 0) reason += sentence(", ", large, " faster, in more memory than there is");
  if (roomy > 0) reason += sentence(", ", roomy, " faster, in more than ", roomy_times, " times the memory of a ring");
  const int seats = winner.job.planner.seats();
  const auto rounded = [](double ratio) { return static_cast<double>(std::llround(ratio * 1000)) / 1000; };
  return reason + sentence(": ", e.steps, e.steps == 1 ? " step" : " steps", ", imbalance ",
                           rounded(e.imbalance(seats)), " step by step, ", rounded(e.imbalance_in_all(seats)),
                           " in all");
}

}  // namespace

Index most_memory(const Schedule& ring, const Prices& prices) {
  return roomy_times * footprint(ring, ring.keys.largest(), prices).total();
}

Choice choose(const Mask& mask, int ranks, const Prices& prices, const Grid* grid, std::string_view partition,
              const std::function<void(Index)>& looked) {
  std::vector<Candidate> candidates = candidates_for(mask, ranks, prices, grid, partition);
  for (Candidate* c : order_of(candidates, ranks)) {
    if (c->least <= least_time(candidates) / worth_it) simulate(*c, prices, enough_looks);
    if (looked) looked(static_cast<Index>(candidates.size()));
  }
  const std::size_t all = candidates.size();
  const bool none_fits = std::ranges::none_of(candidates, &Candidate::fits);
  if (none_fits) keep_smallest(candidates);
  const Candidate* winner = nullptr;
  for (bool open = true; open;) {
    winner = &winner_of(candidates);
    open = false;
    for (Candidate& c : candidates)
      if (!c.in_full && c.fits() && c.partition == winner->partition && (grid == nullptr || &c == winner) &&
          c.seconds() < hopeless * winner->seconds()) {
        simulate(c, prices, prices.most_looks);
        open = true;
      }
  }
  Choice choice{winner->job.grid, winner->partition, reason_for(*winner, candidates)};
  if (none_fits) choice.reason = sentence("the least memory of ", all, " candidates, none of which fits");
  for (Candidate& c : candidates)
    if (c.in_full && c.partition == choice.partition) choice.priced.emplace_back(c.job.grid, std::move(*c.estimate));
  return choice;
}

}  // namespace annulus

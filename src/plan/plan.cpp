#include "annulus/plan/plan.hpp"

#include <algorithm>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"

namespace annulus {
namespace {

// One seat working on one block at one step.
struct Use {
  int step = 0;
  Rank seat = 0;
  std::vector<Tile> tiles;    // keys counted in the owner's rows
  std::vector<Range> held;    // what is here: needed now or later in the chain
  bool from_user = false;     // came from the user before, not from the owner
};

std::vector<Range> needed(const std::vector<Tile>& tiles) {
  std::vector<Range> rows;
  for (const Tile& tile : tiles) rows.push_back(tile.k);
  return united(std::move(rows));
}

// uses[origin]: who works on the block, in order of steps; steps without any work are left out. Use 0 is the owner's own.
std::vector<std::vector<Use>> find_uses(const Grid& grid, const Partition& queries, const Partition& keys,
                                        const Mask& mask, int& steps) {
  const int seats = grid.seats();
  std::vector<std::vector<Use>> uses(static_cast<std::size_t>(seats));
  steps = 0;
  for (int s = 0; s < seats; ++s) {
    bool anybody = s == 0;
    for (Rank r = 0; r < seats; ++r) {
      const Rank origin = visit(grid, s, r);
      auto tiles = meet(queries.runs(r), keys.runs(origin), mask);
      if (tiles.empty() && s > 0) continue;
      anybody = true;
      Use use{steps, r, std::move(tiles), {}, false};
      use.held = s == 0 ? united({{0, keys.rows(r)}}) : needed(use.tiles);
      uses[static_cast<std::size_t>(origin)].push_back(std::move(use));
    }
    if (anybody) ++steps;
  }
  return uses;
}

// next[seat][step]: the first later step in which the seat needs its buffer for another block.
std::vector<std::vector<int>> next_uses(const std::vector<std::vector<Use>>& uses, int steps) {
  std::vector<std::vector<int>> next(uses.size(), std::vector<int>(static_cast<std::size_t>(steps), steps));
  std::vector<std::vector<bool>> busy(uses.size(), std::vector<bool>(static_cast<std::size_t>(steps)));
  for (const auto& chain : uses)
    for (const Use& use : chain) busy[static_cast<std::size_t>(use.seat)][static_cast<std::size_t>(use.step)] = true;
  for (std::size_t r = 0; r < uses.size(); ++r)
    for (std::size_t s = static_cast<std::size_t>(steps) - 1; s > 0; --s)
      next[r][s - 1] = busy[r][s] ? static_cast<int>(s) : next[r][s];
  return next;
}

// Decides who hands the block to whom, and how many rows each must hold for those behind it.
void link(std::vector<Use>& chain, const std::vector<std::vector<int>>& next) {
  for (std::size_t u = 2; u < chain.size(); ++u) {  // use 1 always gets the block from its owner
    const Use& before = chain[u - 1];
    chain[u].from_user = next[static_cast<std::size_t>(before.seat)][static_cast<std::size_t>(before.step)] >= chain[u].step;
  }
  for (std::size_t u = chain.size(); u-- > 2;) {
    if (!chain[u].from_user) continue;
    auto rows = chain[u - 1].held;
    rows.insert(rows.end(), chain[u].held.begin(), chain[u].held.end());
    chain[u - 1].held = united(std::move(rows));
  }
}

// Writes one use of a block, its arrival and its departure into the plans.
void enter(std::vector<Plan>& plans, Rank origin, const std::vector<Use>& chain, std::size_t u) {
  const auto step = [&](Rank seat, int s) -> Step& {
    return plans[static_cast<std::size_t>(seat)].steps[static_cast<std::size_t>(s)];
  };
  const Use& use = chain[u];
  const bool passed_on = u > 0 && u + 1 < chain.size() && chain[u + 1].from_user;
  const int leaves = passed_on ? chain[u + 1].step - 1 : use.step;
  for (int s = use.step; s <= leaves; ++s) {
    step(use.seat, s).origin = origin;
    step(use.seat, s).held = use.held;
  }
  Step& here = step(use.seat, use.step);
  here.tiles = use.tiles;
  for (Tile& tile : here.tiles) tile.k = within(use.held, tile.k);
  if (u == 0) return;
  const Rank source = use.from_user ? chain[u - 1].seat : origin;
  Step& before = step(use.seat, use.step - 1);
  before.arrive = Move{source, use.held};
  before.arrives_used = use.from_user;
  Step& sender = step(source, use.step - 1);
  (use.from_user ? sender.forward : sender.lend) = Move{use.seat, use.held};
  auto home = passed_on ? without(use.held, chain[u + 1].held) : use.held;
  if (home.empty()) return;
  step(origin, leaves).homecoming = Move{use.seat, home};
  step(use.seat, leaves).give_back = Move{origin, std::move(home)};
}

}  // namespace

Index Plan::buffer_rows() const {
  Index most = 0;
  for (const Step& step : steps)
    if (step.arrive) most = std::max(most, count(step.arrive->rows));
  return most;
}

Index Plan::pairs() const {
  Index total = 0;
  for (const Step& step : steps) total += annulus::pairs(step.tiles);
  return total;
}

std::vector<Plan> make_plans(const Grid& grid, const Partition& queries, const Partition& keys, const Mask& mask) {
  require(queries.ranks() == grid.seats() && keys.ranks() == grid.seats(), "the partitions must have one shard per seat: ",
          queries.ranks(), " and ", keys.ranks(), " shards, ", grid.seats(), " seats");
  require(queries.tokens() == mask.queries() && keys.tokens() == mask.keys(),
          "the partitions must cover the tokens of the mask: ", queries.tokens(), " and ", keys.tokens(), " tokens, ",
          mask.queries(), " queries and ", mask.keys(), " keys");
  int steps = 0;
  auto uses = find_uses(grid, queries, keys, mask, steps);
  const auto next = next_uses(uses, steps);
  std::vector<Plan> plans(uses.size());
  for (Rank seat = 0; seat < grid.seats(); ++seat) {
    Plan& plan = plans[static_cast<std::size_t>(seat)];
    plan.seat = seat;
    plan.query_rows = queries.rows(seat);
    plan.key_rows = keys.rows(seat);
    plan.steps.resize(static_cast<std::size_t>(steps));
  }
  for (Rank origin = 0; origin < grid.seats(); ++origin) {
    auto& chain = uses[static_cast<std::size_t>(origin)];
    link(chain, next);
    for (std::size_t u = 0; u < chain.size(); ++u) enter(plans, origin, chain, u);
  }
  return plans;
}

Range within(const std::vector<Range>& held, Range range) {
  Index before = 0;
  for (const Range& part : held) {
    if (part.begin <= range.begin && range.end <= part.end)
      return {before + range.begin - part.begin, before + range.end - part.begin};
    before += part.count();
  }
  throw Error(Failure::runtime, sentence("rows ", range.begin, " to ", range.end, " are not held here"));
}

Schedule make_schedule(const Grid& grid, std::string_view partition, const Mask& mask, std::span<const double> weights) {
  const int ranks = grid.ranks();
  Partition queries = make_partition(partition, mask.queries(), ranks, mask, weights);
  Partition keys = mask.queries() == mask.keys()
                       ? queries
                       : make_partition(partition, mask.keys(), ranks, mask, partition == "balanced" ? std::span<const double>{} : weights);
  auto plans = make_plans(grid, queries.joined(grid.heads), keys.joined(grid.heads), mask);
  return {grid, mask, std::move(queries), std::move(keys), std::move(plans)};
}

}  // namespace annulus

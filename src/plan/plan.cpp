#include "annulus/plan/plan.hpp"

#include <algorithm>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"
#include "plan/reach.hpp"
#include "plan/sight.hpp"

namespace annulus {
namespace {

// One seat working on one block at one step.
struct Use {
  int step = 0;
  Rank seat = nobody;  // nobody: there is no such use
  std::vector<Range> rows;
  bool exists() const { return seat != nobody; }
};

// Finds the uses of one block before and after a given one, each decided by looking at two seats only.
class Chain {
 public:
  Chain(const Planner& planner, Rank origin) : planner_(planner), origin_(origin) {}

  // The next use after step `from`, not later than step `to`.
  Use after(int from, int to) {
    for (int s = from + 1; s <= to && s < planner_.steps(); ++s)
      if (Use use = at(s); use.exists()) return use;
    return {};
  }
  // The last use before step `from`; the owner's own at step 0 does not count.
  Use before(int from) {
    for (int s = from - 1; s > 0; --s)
      if (Use use = at(s); use.exists()) return use;
    return {};
  }
  // Whether the user of the block can hand it to the next one: it holds the rows, and needs its buffer no earlier.
  bool linked(const Use& use, const Use& next) {
    if (!use.exists() || !next.exists() || use.step == 0 || !inside(next.rows, use.rows)) return false;
    for (int s = use.step + 1; s < next.step; ++s)
      if (busy(s, use.seat)) return false;
    return true;
  }

 private:
  Use at(int s) {
    const Rank seat = host(planner_.grid(), planner_.visit_of(s), origin_);
    planner_.look(seat, origin_, sight_);
    if (sight_.none()) return {};
    return {s, seat, sight_.rows};
  }
  bool busy(int s, Rank seat) {
    const Rank origin = visit(planner_.grid(), planner_.visit_of(s), seat);
    planner_.look(seat, origin, sight_);
    return !sight_.none();
  }
  const Planner& planner_;
  Rank origin_;
  Sight sight_;
};

std::vector<Range> rows_needed(const std::vector<Tile>& tiles) {
  std::vector<Range> rows;
  for (const Tile& tile : tiles) rows.push_back(tile.k);
  return united(std::move(rows));
}

// Writes a visit into the plan: where the block comes from, and where it goes.
void add_visit(const Planner& planner, Plan& plan, int s, Rank origin, int next_busy) {
  const auto step = [&](int at) -> Step& { return plan.steps[static_cast<std::size_t>(at)]; };
  Step& here = step(s);
  Chain chain(planner, origin);
  const Use use{s, plan.seat, rows_needed(here.tiles)};
  const Use before = chain.before(s), next = chain.after(s, next_busy);
  const bool from_user = chain.linked(before, use), passed_on = chain.linked(use, next);
  const int leaves = passed_on ? next.step - 1 : s;
  for (int at = s; at <= leaves; ++at) step(at).held = {{origin, use.rows}};
  for (Tile& tile : here.tiles) tile.k = within(use.rows, tile.k);
  step(s - 1).arrive = {{from_user ? before.seat : origin, use.rows}};
  step(s - 1).arrives_used = from_user;
  if (passed_on) step(leaves).forward = Move{next.seat, next.rows};
  auto home = passed_on ? without(use.rows, next.rows) : use.rows;
  if (!home.empty()) step(leaves).give_back = {{origin, std::move(home)}};
}

// Writes what the owner of a block does for those who use it.
void add_owner(const Planner& planner, Plan& plan) {
  const auto step = [&](int at) -> Step& { return plan.steps[static_cast<std::size_t>(at)]; };
  Chain chain(planner, plan.seat);
  Use use;
  for (Use next = chain.after(0, planner.steps()); next.exists();) {
    if (!chain.linked(use, next)) step(next.step - 1).lend = {{next.seat, next.rows}};
    use = std::move(next);
    next = chain.after(use.step, planner.steps());
    const bool passed_on = chain.linked(use, next);
    auto home = passed_on ? without(use.rows, next.rows) : use.rows;
    if (!home.empty()) step(passed_on ? next.step - 1 : use.step).homecoming = {{use.seat, std::move(home)}};
  }
}

}  // namespace

Index Plan::buffer_rows() const {
  Index most = 0;
  for (const Step& step : steps) most = std::max(most, count(step.arrive));
  return most;
}

Index Plan::pairs() const {
  Index total = 0;
  for (const Step& step : steps) total += annulus::pairs(step.tiles);
  return total;
}

Planner::Planner(const Grid& grid, Partition queries, Partition keys, Mask mask)
    : grid_(grid), queries_(std::move(queries)), keys_(std::move(keys)), mask_(std::move(mask)) {
  require(queries_.ranks() == seats() && keys_.ranks() == seats(),
          "the partitions must have one shard per seat: ", queries_.ranks(), " and ", keys_.ranks(), " shards, ",
          seats(), " seats");
  require(queries_.tokens() == mask_.queries() && keys_.tokens() == mask_.keys(),
          "the partitions must cover the tokens of the mask: ", queries_.tokens(), " and ", keys_.tokens(),
          " tokens, ", mask_.queries(), " queries and ", mask_.keys(), " keys");
  ordinary_ = is_ordinary(queries_, keys_, mask_);
  reach_ = find_reach(queries_, keys_, mask_);
  std::vector<bool> active(static_cast<std::size_t>(seats()));
  active[0] = true;
  int idle = seats() - 1;
  Sight sight;
  for (int i = 0; i < seats() && idle > 0; ++i) {  // most masks show every step to the last seat or to the first
    const Rank seat = i == 0 ? seats() - 1 : i - 1;
    for (const Range& seen : reach_[static_cast<std::size_t>(seat)])
      for (auto origin = static_cast<Rank>(seen.begin); origin < static_cast<Rank>(seen.end); ++origin) {
        const auto step = static_cast<std::size_t>(step_of(grid_, seat, origin));
        if (active[step]) continue;
        look(seat, origin, sight);
        if (sight.none()) continue;
        active[step] = true;
        --idle;
      }
  }
  for (int step = 0; step < seats(); ++step)
    if (active[static_cast<std::size_t>(step)]) visits_.push_back(step);
}

void Planner::look(Rank seat, Rank origin, Sight& into) const {
  const auto& near = reach_[static_cast<std::size_t>(seat)];
  into.pairs = 0;
  if (std::ranges::none_of(near, [&](Range seats) { return seats.contains(origin); })) return;
  if (ordinary_) return look_at_ordinary(queries_.runs(seat), keys_.runs(origin), mask_, into);
  annulus::look(queries_.runs(seat), keys_.runs(origin), mask_, into);
}

Plan Planner::plan(Rank seat) const {
  Plan plan{seat, queries_.rows(seat), keys_.rows(seat), std::vector<Step>(visits_.size())};
  const auto step = [&](int at) -> Step& { return plan.steps[static_cast<std::size_t>(at)]; };
  std::vector<int> busy;
  Sight sight;
  for (int s = 0; s < steps(); ++s) {
    look(seat, visit(grid_, visit_of(s), seat), sight);
    if (sight.none()) continue;
    step(s).tiles = meet(queries_.runs(seat), keys_.runs(visit(grid_, visit_of(s), seat)), mask_);
    if (s > 0) busy.push_back(s);
  }
  step(0).held = {{seat, united({{0, plan.key_rows}})}};
  for (std::size_t b = 0; b < busy.size(); ++b)
    add_visit(*this, plan, busy[b], visit(grid_, visit_of(busy[b]), seat), b + 1 < busy.size() ? busy[b + 1] : steps());
  add_owner(*this, plan);
  return plan;
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

Range within(const std::vector<Move>& held, Rank owner, Range range) {
  Index before = 0;
  for (const Move& block : held) {
    if (block.seat == owner) {
      const Range local = within(block.rows, range);
      return {before + local.begin, before + local.end};
    }
    before += count(block.rows);
  }
  throw Error(Failure::runtime, sentence("no rows of seat ", owner, " are held here"));
}

Index count(std::span<const Move> moves) {
  Index total = 0;
  for (const Move& move : moves) total += count(move.rows);
  return total;
}

Schedule make_schedule(const Grid& grid, std::string_view partition, const Mask& mask,
                       std::span<const double> weights) {
  const int ranks = grid.ranks();
  Partition queries = make_partition(partition, mask.queries(), ranks, mask, weights);
  Partition keys = mask.queries() == mask.keys()
                       ? queries
                       : make_partition(partition, mask.keys(), ranks, mask,
                                        partition == "balanced" ? std::span<const double>{} : weights);
  Planner planner(grid, queries.joined(grid.heads), keys.joined(grid.heads), mask);
  return {grid, mask, std::move(queries), std::move(keys), std::move(planner)};
}

}  // namespace annulus

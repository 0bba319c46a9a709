#include "annulus/plan/plan.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"
#include "plan/chain.hpp"
#include "plan/reach.hpp"
#include "plan/sight.hpp"
#include "plan/spans.hpp"
#include "plan/strided.hpp"

namespace annulus {
namespace {

std::vector<Range> rows_needed(const std::vector<Tile>& tiles) {
  std::vector<Range> rows;
  for (const Tile& tile : tiles) rows.push_back(tile.k);
  return united(std::move(rows));
}

// The same mask with queries and keys exchanged.
Mask turned(const Mask& mask) {
  std::vector<Region> regions;
  for (const Region& r : mask.regions()) regions.push_back({r.k, r.q, {-r.band.hi, -r.band.lo}});
  return Mask::of(std::move(regions), mask.keys(), mask.queries(), mask.name());
}

Tile turned(const Tile& tile) {
  return {tile.k, tile.q, {-tile.band.hi, -tile.band.lo}, tile.k_at, tile.q_at, tile.stride};
}

Step& at(Plan& plan, int step) { return plan.steps[static_cast<std::size_t>(step)]; }

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
    : grid_(grid),
      stay_(std::move(queries_travel(grid.travel) ? keys : queries)),
      travel_(std::move(queries_travel(grid.travel) ? queries : keys)),
      seen_(queries_travel(grid.travel) ? turned(mask) : std::move(mask)) {
  require(stay_.ranks() == seats() && travel_.ranks() == seats(),
          "the partitions must have one shard per seat: ", stay_.ranks(), " and ", travel_.ranks(), " shards, ",
          seats(), " seats");
  require(stay_.tokens() == seen_.queries() && travel_.tokens() == seen_.keys(),
          "the partitions must cover the tokens of the mask: ", stay_.tokens(), " and ", travel_.tokens(),
          " tokens, ", seen_.queries(), " and ", seen_.keys(), " in the mask");
  ordinary_ = is_ordinary(stay_, travel_, seen_);
  reach_ = find_reach(stay_, travel_, seen_);
  const std::vector<bool> active = find_active();
  const bool tree = grid_.travel == Travel::tree, chained = !tree && grid_.travel != Travel::gather;
  if (tree) first_.push_back(0);  // nobody works before all queries are here
  for (int step = 0; step < seats(); ++step) {
    if (!tree && !active[static_cast<std::size_t>(step)]) continue;
    const bool same_turn = visits_.size() > 1 && visits_.back() / grid_.inner == step / grid_.inner;
    if (chained || step == 0 || (!tree && !same_turn)) first_.push_back(visits_.size());
    visits_.push_back(step);
  }
  first_.push_back(visits_.size());
  for (const auto& seats : reach_) looks_ += count(seats);
  looks_ = std::min(looks_, static_cast<Index>(visits_.size()) * seats());
}

// Which steps of the itinerary show somebody a block that they see; the first, their own, is always one.
std::vector<bool> Planner::find_active() const {
  std::vector<bool> active(static_cast<std::size_t>(seats()));
  active[0] = true;
  StridedTiles tiles(stay_, travel_, seen_);
  Sight sight;
  const auto sees = [&](Rank seat, Rank origin) {
    if (tiles.serves()) tiles.look(stay_.runs(seat), travel_.runs(origin), sight);
    else look(seat, origin, sight);
    return !sight.none();
  };
  int idle = seats() - 1;
  const auto show = [&](Rank seat) {
    for (const Range& seen : reach_[static_cast<std::size_t>(seat)])
      for (auto origin = static_cast<Rank>(seen.begin); origin < static_cast<Rank>(seen.end); ++origin) {
        const auto step = static_cast<std::size_t>(step_of(grid_, seat, origin));
        if (active[step] || !sees(seat, origin)) continue;
        active[step] = true;
        --idle;
      }
  };
  show(seats() - 1);  // most masks show every step to the last seat or to the first
  if (idle > 0) show(0);
  const bool all_near = std::ranges::all_of(reach_, [&](const auto& near) { return count(near) == seats(); });
  if (idle > 0 && all_near && (ordinary_ || tiles.serves())) {  // striped shards: nearly all of a step are alike
    const Spans spans(*this, tiles, false);
    for (int step = 1; step < seats(); ++step) {
      bool any = active[static_cast<std::size_t>(step)];
      if (!any) spans.for_row(step, [&](const Span& span) { any = any || sees(span.seat, span.origin); });
      active[static_cast<std::size_t>(step)] = any;
    }
    return active;
  }
  for (Rank seat = 1; seat + 1 < seats() && idle > 0; ++seat) show(seat);
  return active;
}

std::span<const int> Planner::visits(int step) const {
  const std::size_t begin = first_[static_cast<std::size_t>(step)], end = first_[static_cast<std::size_t>(step) + 1];
  return std::span(visits_).subspan(begin, end - begin);
}

void Planner::look(Rank seat, Rank origin, Sight& into) const {
  const auto& near = reach_[static_cast<std::size_t>(seat)];
  into.pairs = 0;
  const auto found = std::ranges::upper_bound(near, Index{origin}, {}, &Range::end);
  if (found == near.end() || !found->contains(origin)) return;
  if (ordinary_) return look_at_ordinary(stay_.runs(seat), travel_.runs(origin), seen_, into);
  annulus::look(stay_.runs(seat), travel_.runs(origin), seen_, into);
}

Index Planner::pairs_of(Rank seat) const {
  const auto mine = stay_.runs(seat);
  Index pairs = 0;
  if (std::ranges::all_of(mine, [](const Run& run) { return run.stride == 1 || run.count == 1; })) {
    const Run all{0, travel_.tokens(), 1};
    for (const Tile& tile : annulus::meet(mine, {&all, 1}, seen_)) pairs += tile.pairs();
    return pairs;
  }
  Sight sight;
  for (Rank origin = 0; origin < seats(); ++origin) {
    look(seat, origin, sight);
    pairs += sight.pairs;
  }
  return pairs;
}

std::vector<Tile> Planner::meet(Rank seat, Rank origin) const {
  Sight sight;
  look(seat, origin, sight);
  if (sight.none()) return {};
  return annulus::meet(stay_.runs(seat), travel_.runs(origin), seen_);
}

// Writes a visit into the plan: where the block comes from, and where it goes.
void Planner::add_visit(Plan& plan, int s, int next_busy) const {
  const Rank origin = visit(grid_, visits(s).front(), plan.seat);
  Step& here = at(plan, s);
  Chain chain(*this, origin);
  const Use use{s, plan.seat, rows_needed(here.tiles)};
  const Use before = chain.before(s), next = chain.after(s, next_busy);
  const bool from_user = chain.linked(before, use), passed_on = chain.linked(use, next);
  const int leaves = passed_on ? next.step - 1 : s;
  for (int t = s; t <= leaves; ++t) at(plan, t).held = {{origin, use.rows}};
  for (Tile& tile : here.tiles) tile.k = within(use.rows, tile.k);
  at(plan, s - 1).arrive = {{from_user ? before.seat : origin, use.rows}};
  at(plan, s - 1).arrives_used = from_user;
  if (passed_on) at(plan, leaves).forward = Move{next.seat, next.rows};
  auto home = passed_on ? without(use.rows, next.rows) : use.rows;
  if (!home.empty()) at(plan, leaves).give_back = {{origin, std::move(home)}};
}

// Writes what the owner of a block does for those who use it.
void Planner::add_owner(Plan& plan) const {
  Chain chain(*this, plan.seat);
  Use use;
  for (Use next = chain.after(0, steps()); next.exists();) {
    if (!chain.linked(use, next)) at(plan, next.step - 1).lend = {{next.seat, next.rows}};
    use = std::move(next);
    next = chain.after(use.step, steps());
    const bool passed_on = chain.linked(use, next);
    auto home = passed_on ? without(use.rows, next.rows) : use.rows;
    if (!home.empty()) at(plan, passed_on ? next.step - 1 : use.step).homecoming = {{use.seat, std::move(home)}};
  }
}

// Writes a step in which several blocks are here at once, and what others need of the own block for it.
void Planner::add_gathered(Plan& plan, int s) const {
  const bool tree = grid_.travel == Travel::tree;
  Step &here = at(plan, s), &before = at(plan, s - 1);
  std::vector<std::pair<Rank, Rank>> pairs;  // whose block, and who needs the own one
  for (const int row : visits(s)) pairs.emplace_back(visit(grid_, row, plan.seat), host(grid_, row, plan.seat));
  std::ranges::sort(pairs, {}, &std::pair<Rank, Rank>::first);
  Index at_row = 0;
  Sight sight;
  for (const auto& [origin, user] : pairs) {
    auto tiles = meet(plan.seat, origin);
    const auto rows = tree ? united({{0, travel_.rows(origin)}}) : rows_needed(tiles);
    for (Tile& tile : tiles) {
      const Range local = within(rows, tile.k);
      tile.k = {at_row + local.begin, at_row + local.end};
      here.tiles.push_back(tile);
    }
    at_row += count(rows);
    if (!rows.empty()) {
      here.held.push_back({origin, rows});
      before.arrive.push_back({origin, rows});
      if (!tree) here.give_back.push_back({origin, rows});
    }
    look(user, plan.seat, sight);
    const auto lent = tree ? united({{0, plan.own_rows}}) : sight.none() ? std::vector<Range>{} : sight.rows;
    if (lent.empty()) continue;
    before.lend.push_back({user, lent});
    if (!tree) here.homecoming.push_back({user, lent});
  }
}

// Halves the queries a seat knows of until its own are left: with the seat that is so far away as the half is large.
// Seats beyond the largest power of two first give all they know to one below it, and get their own rows at the end.
std::vector<Merge> Planner::merges(Rank me) const {
  std::vector<Merge> rounds;
  if (grid_.travel != Travel::tree) return rounds;
  const int whole = static_cast<int>(std::bit_floor(static_cast<unsigned>(seats())));
  std::vector<Index> first{0};
  for (Rank seat = 0; seat < seats(); ++seat) first.push_back(first.back() + travel_.rows(seat));
  const auto rows = [&](Rank begin, Rank end) {  // of these seats and of those that gave to them
    const auto span = [&](Rank from, Rank to) {
      return Range{first[static_cast<std::size_t>(std::min(from, seats()))],
                   first[static_cast<std::size_t>(std::min(to, seats()))]};
    };
    return united({span(begin, end), span(begin + whole, end + whole)});
  };
  const bool beyond = me >= whole, helps = me + whole < seats();
  if (whole < seats()) {
    if (beyond) rounds.push_back({me - whole, rows(0, whole), {}});
    if (helps) rounds.push_back({me + whole, {}, rows(0, whole)});
    if (!beyond && !helps) rounds.emplace_back();
  }
  Rank begin = 0;
  for (int half = whole / 2; half > 0; half /= 2) {
    const bool low = me < begin + half;
    const auto lower = rows(begin, begin + half), upper = rows(begin + half, begin + 2 * half);
    if (beyond) {
      rounds.emplace_back();
    } else if (low) {
      rounds.push_back({me + half, upper, lower});
    } else {
      rounds.push_back({me - half, lower, upper});
      begin += half;
    }
  }
  if (whole == seats()) return rounds;
  const auto own = [&](Rank seat) {
    const auto place = static_cast<std::size_t>(seat);
    return united({{first[place], first[place + 1]}});
  };
  if (beyond) rounds.push_back({me - whole, {}, own(me)});
  if (helps) rounds.push_back({me + whole, own(me + whole), {}});
  if (!beyond && !helps) rounds.emplace_back();
  return rounds;
}

Plan Planner::plan(Rank seat) const {
  Plan plan{seat, queries().rows(seat), keys().rows(seat), travel_.rows(seat), std::vector<Step>(first_.size() - 1),
            merges(seat)};
  at(plan, 0).held = {{seat, united({{0, plan.own_rows}})}};
  if (grid_.travel != Travel::tree) at(plan, 0).tiles = meet(seat, seat);
  if (grid_.travel == Travel::gather || grid_.travel == Travel::tree) {
    for (int s = 1; s < steps(); ++s) add_gathered(plan, s);
  } else {
    std::vector<int> busy;
    for (int s = 1; s < steps(); ++s) {
      at(plan, s).tiles = meet(seat, visit(grid_, visits(s).front(), seat));
      if (!at(plan, s).tiles.empty()) busy.push_back(s);
    }
    for (std::size_t b = 0; b < busy.size(); ++b) add_visit(plan, busy[b], b + 1 < busy.size() ? busy[b + 1] : steps());
    add_owner(plan);
  }
  if (queries_travel(grid_.travel))
    for (Step& step : plan.steps)
      for (Tile& tile : step.tiles) tile = turned(tile);
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

Schedule ring_of(const Schedule& job) {
  Grid grid = job.grid;
  grid.travel = Travel::keys;
  return {grid, job.mask, job.queries, job.keys, Planner(grid, job.planner.queries(), job.planner.keys(), job.mask)};
}

Schedule with_mask(const Schedule& job, const Mask& mask) {
  const int heads = job.grid.heads;
  return {job.grid, mask, job.queries, job.keys, Planner(job.grid, job.queries.joined(heads), job.keys.joined(heads), mask)};
}

std::vector<double> weights_in_seats(std::span<const double> given, int heads) {
  std::vector<double> weights(given.begin(), given.end());
  for (auto seat = weights.begin(); seat != weights.end();) {
    const auto end = seat + std::min<std::ptrdiff_t>(heads, weights.end() - seat);
    std::fill(seat, end, *std::min_element(seat, end));
    seat = end;
  }
  return weights;
}

std::vector<double> weights_of_rates(std::span<const double> rates) {
  constexpr double alike = 1.05, least_weight = 0.001;
  const auto [least, most] = std::ranges::minmax(rates);
  if (most < alike * least) return {};
  const double mean = std::accumulate(rates.begin(), rates.end(), 0.0) / static_cast<double>(rates.size());
  std::vector<double> weights;
  for (const double rate : rates) weights.push_back(std::max(least_weight, rate / mean));
  return weights;
}

Schedule make_schedule(const Grid& grid, std::string_view partition, const Mask& mask, std::span<const double> given) {
  const int ranks = grid.ranks();
  const std::vector<double> weights = weights_in_seats(given, grid.heads);
  Partition queries = make_partition(partition, mask.queries(), ranks, mask, weights);
  Partition keys = mask.queries() == mask.keys()
                       ? queries
                       : make_partition(partition, mask.keys(), ranks, mask);
  Planner planner(grid, queries.joined(grid.heads), keys.joined(grid.heads), mask);
  return {grid, mask, std::move(queries), std::move(keys), std::move(planner)};
}

}  // namespace annulus

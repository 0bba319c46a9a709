#include <algorithm>
#include <optional>

#include "annulus/plan/cost.hpp"
#include "plan/clock.hpp"
#include "plan/passes.hpp"
#include "plan/sight.hpp"

namespace annulus {
namespace {

// Calls at(seat, origin) for every seat of one step of the itinerary, as visit() says, without its divisions.
template <class At>
void for_row(const Grid& grid, int step, const At& at) {
  const int turn = step / grid.inner, hop = step % grid.inner;
  for (int ring = 0, from = turn == 0 ? 0 : grid.outer - turn; ring < grid.outer; ++ring) {
    for (int place = 0, back = hop == 0 ? 0 : grid.inner - hop; place < grid.inner; ++place) {
      at(ring * grid.inner + place, from * grid.inner + back);
      if (++back == grid.inner) back = 0;
    }
    if (++from == grid.outer) from = 0;
  }
}

// The plans of all seats, step by step, told to a counter and to a clock for each pass.
class Stream {
 public:
  Stream(const Schedule& job, const Prices& prices, const Passes& passes)
      : planner_(job.planner),
        grid_(job.grid),
        paces_(prices, job.grid.heads),
        ranks_per_node_(prices.ranks_per_node),
        several_nodes_(prices.ranks_per_node < job.grid.ranks()),
        seats_(static_cast<std::size_t>(planner_.seats())),
        blocks_(seats_.size()) {
    clocks_.emplace_back(prices, grid_, passes.forward.block_bytes, passes.forward.sum_bytes);
    if (passes.backward) clocks_.emplace_back(prices, grid_, passes.backward->block_bytes, passes.backward->sum_bytes);
    sight_.paces = &paces_;
    sight_.backward = clocks_.size() > 1;
  }

  /// Counts, and the times of the steps alone.
  void run(Estimate& e) {
    e.steps = planner_.steps();
    e.by_step.resize(static_cast<std::size_t>(e.steps));
    for (step_ = 0; step_ < planner_.steps(); ++step_) {
      go_home();
      if (grid_.travel == Travel::tree) {
        meet_all();
      } else {
        for (const int row : planner_.visits(step_))
          for_row(grid_, row, [&](Rank seat, Rank origin) { meet(seat, origin); });
      }
      end_step(e);
    }
    last_homes();
    for (const Seat& seat : seats_) {
      e.most_pairs = std::max(e.most_pairs, seat.all_pairs);
      most_received = std::max(most_received, seat.all_rows);
      received += seat.all_rows;
    }
    merge();
    e.forward = clocks_.front().end();
    if (clocks_.size() > 1) e.backward = clocks_.back().end();
  }

  Index received = 0, most_received = 0;  // rows of visiting blocks: of all seats, of the one with most
  Index merged = 0, most_merged = 0;      // rows of partial results, likewise
  Index crossed = 0, merged_across = 0;   // those of them that came from another node

 private:
  struct Seat {
    Index pairs = 0, rows = 0, all_pairs = 0, all_rows = 0;
    int busy = 0;  // the last step in which it worked
  };
  struct Block {
    int step = 0;  // of its last use by a visitor
    Rank user = nobody;
    std::vector<Range> rows;
  };
  struct Home {
    Rank owner, from;
    Index rows;
  };

  Index node_of(Rank seat) const { return Index{seat} * grid_.heads / ranks_per_node_; }

  // All queries come to every seat: the work is what sees its keys.
  void meet_all() {
    if (step_ == 0) return;
    const Partition& queries = planner_.queries();
    const Index all = queries.tokens(), block = ceil_div(all, planner_.seats());
    std::vector<Index> rows, rows_of_node(static_cast<std::size_t>(node_of(planner_.seats() - 1)) + 1);
    for (Rank seat = 0; seat < planner_.seats(); ++seat) {
      rows.push_back(queries.rows(seat));
      rows_of_node[static_cast<std::size_t>(node_of(seat))] += rows.back();
    }
    clocks_.front().gather_all(rows);
    for (Rank seat = 0; seat < planner_.seats(); ++seat) {
      Seat& here = seats_[static_cast<std::size_t>(seat)];
      here.pairs = planner_.pairs_of(seat);
      here.rows = all - queries.rows(seat);
      crossed += all - rows_of_node[static_cast<std::size_t>(node_of(seat))];
      clocks_.front().work(seat, paces_.forward.full(block, planner_.keys().rows(seat), here.pairs), all);
    }
  }

  // What the seat works on in this step, and where it comes from.
  void meet(Rank seat, Rank origin) {
    planner_.look(seat, origin, sight_);
    if (sight_.none()) return;
    Seat& here = seats_[static_cast<std::size_t>(seat)];
    here.pairs += sight_.pairs;
    const Index rows = step_ == 0 ? 0 : count(sight_.rows);
    clocks_.front().work(seat, sight_.forward_seconds, rows);
    if (sight_.backward) clocks_.back().work(seat, sight_.backward_seconds, rows);
    if (step_ == 0) return;
    here.rows += rows;
    const Rank source = grid_.travel == Travel::gather ? gathered(seat, origin, rows) : pass_on(seat, origin, rows);
    for (Clock& clock : clocks_) clock.block(seat, source, rows);
    if (several_nodes_ && node_of(seat) != node_of(source)) crossed += rows;
  }

  Rank gathered(Rank seat, Rank origin, Index rows) {
    if (clocks_.back().with_sums()) homes_.push_back({origin, seat, rows});
    return origin;
  }

  // From whom the seat gets the rows it sees: the user before, where the chain goes on, or the owner.
  Rank pass_on(Rank seat, Rank origin, Index rows) {
    Block& block = blocks_[static_cast<std::size_t>(origin)];
    const bool linked = block.user != nobody && seats_[static_cast<std::size_t>(block.user)].busy == block.step &&
                        inside(sight_.rows, block.rows);
    const Rank source = linked ? block.user : origin;
    for (Clock& clock : clocks_) {
      if (!clock.with_sums() || block.user == nobody) continue;
      const Index home = count(block.rows) - (linked ? rows : 0);
      if (linked) clock.sums(seat, block.user, rows);
      if (home > 0) clock.home(origin, block.user, home);
    }
    block.step = step_;
    block.user = seat;
    block.rows.assign(sight_.rows.begin(), sight_.rows.end());
    return source;
  }

  // Sums of what was gathered in the step before.
  void go_home() {
    for (Clock& clock : clocks_)
      if (clock.with_sums())
        for (const Home& home : homes_) clock.home(home.owner, home.from, home.rows);
    homes_.clear();
  }

  // Sums of the last use of each block.
  void last_homes() {
    go_home();
    for (Clock& clock : clocks_) {
      if (!clock.with_sums()) continue;
      for (Rank owner = 0; owner < planner_.seats(); ++owner)
        if (const Block& block = blocks_[static_cast<std::size_t>(owner)]; block.user != nobody)
          clock.home(owner, block.user, count(block.rows));
    }
  }

  // Counts the step, and lets the seats go on to it.
  void end_step(Estimate& e) {
    StepSum& sum = e.by_step[static_cast<std::size_t>(step_)];
    Index rows = 0, most_rows = 0;
    for (Seat& seat : seats_) {
      seat.all_pairs += seat.pairs;
      seat.all_rows += seat.rows;
      if (seat.pairs > 0) seat.busy = step_;
      sum.pairs += seat.pairs;
      sum.most_pairs = std::max(sum.most_pairs, seat.pairs);
      rows += seat.rows;
      most_rows = std::max(most_rows, seat.rows);
      seat.pairs = seat.rows = 0;
    }
    for (Clock& clock : clocks_) clock.step();
    e.pairs += sum.pairs;
    e.path_pairs += sum.most_pairs;
    e.buffer_rows = std::max(e.buffer_rows, most_rows);
    if (step_ == 0) return;
    e.by_step[static_cast<std::size_t>(step_) - 1].rows = rows;  // they travel in the batch of the step before
    e.by_step[static_cast<std::size_t>(step_) - 1].most_rows = most_rows;
  }

  // The rounds after the steps; everybody waits for the largest.
  void merge() {
    struct Round {
      Index most = 0;
      bool across = false;
    };
    std::vector<Round> all(planner_.merges(0).size());
    for (Rank seat = 0; seat < planner_.seats() && !all.empty(); ++seat) {
      Index mine = 0;
      const auto rounds = planner_.merges(seat);
      for (std::size_t m = 0; m < rounds.size(); ++m) {
        const Index rows = count(rounds[m].receive);
        const bool across = rows > 0 && node_of(seat) != node_of(rounds[m].peer);
        all[m] = {std::max(all[m].most, rows), all[m].across || across};
        mine += rows;
        if (across) merged_across += rows;
      }
      merged += mine;
      most_merged = std::max(most_merged, mine);
    }
    for (const Round& round : all) clocks_.front().merge(round.most, round.across);
  }

  const Planner& planner_;
  const Grid grid_;
  const Paces paces_;
  int ranks_per_node_;
  bool several_nodes_;
  int step_ = 0;
  std::vector<Clock> clocks_;  // forward, and backward where it is asked for
  std::vector<Seat> seats_;
  std::vector<Block> blocks_;  // by owner
  std::vector<Home> homes_;
  Sight sight_;
};

// Traces and gradients of the tree are those of a ring over the same shards.
Schedule ring_of(const Schedule& job) {
  Grid grid = job.grid;
  grid.travel = Travel::keys;
  return {grid, job.mask, job.queries, job.keys, Planner(grid, job.planner.queries(), job.planner.keys(), job.mask)};
}

}  // namespace

double least_seconds(const Schedule& job, const Prices& prices) {
  const Paces paces(prices, job.grid.heads);
  const double each = paces.forward.least() + (prices.backward ? paces.backward.least() : 0);
  const bool strided = std::ranges::any_of(job.planner.queries().runs(0), [](const Run& run) { return run.stride > 1; });
  Index most = job.mask.pairs() / job.planner.seats();
  for (Rank seat = 0; seat < job.planner.seats() && !strided; ++seat)  // a closed form for each
    most = std::max(most, job.planner.pairs_of(seat));
  return static_cast<double>(most) * each;
}

Estimate estimate(const Schedule& job, const Prices& p) {
  const int lanes = job.grid.heads;
  const Passes passes(job, p);
  Estimate e;
  e.row_bytes = passes.row_bytes();
  Stream stream(job, p, passes);
  stream.run(e);
  e.forward.seconds += passes.forward.fixed_seconds;
  if (passes.backward) e.backward.seconds += passes.backward->fixed_seconds;
  const Index partial_row = passes.partial_row_bytes;
  e.block_bytes_received = stream.most_received * e.row_bytes + stream.most_merged * partial_row;
  e.total_bytes = (stream.received * e.row_bytes + stream.merged * partial_row) * lanes;
  e.node_bytes = (stream.crossed * e.row_bytes + stream.merged_across * partial_row) * lanes;
  e.exchange_bytes = passes.exchange_bytes;
  e.exchange_total = passes.exchange_total;
  e.exchange_node_bytes = passes.exchange_node_bytes;
  constexpr Index f32 = 4;
  const Index kv_row = largest_kv_share(p, lanes) * (p.channels + p.value_channels);
  e.whole_bytes = job.mask.keys() * (job.planner.seats() - 1) * lanes *
                  (p.backward ? kv_row * (2 * p.element_bytes + f32) : kv_row * p.element_bytes);
  if (job.grid.travel != Travel::tree || !p.backward) return e;
  const Schedule ring = ring_of(job);
  const Estimate both = estimate(ring, p);
  const Index more = Passes(ring, p).backward->block_bytes + Passes(ring, p).backward->sum_bytes;
  e.backward = both.backward;
  e.block_bytes_received += both.block_bytes_received / both.row_bytes * more;
  e.total_bytes += both.total_bytes / both.row_bytes * more;
  e.node_bytes += both.node_bytes / both.row_bytes * more;
  e.buffer_rows = std::max(e.buffer_rows, both.buffer_rows);
  return e;
}

}  // namespace annulus

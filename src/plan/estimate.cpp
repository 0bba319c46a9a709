#include <algorithm>

#include "annulus/plan/cost.hpp"
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

// What one of each takes at one rank of a seat.
struct Units {
  double seconds_per_pair, seconds_per_row, seconds_per_merged_row, latency, hidden;
};

// What is known of all seats while their steps go by.
class Stream {
 public:
  Stream(const Planner& planner, const Units& units, int ranks_per_node)
      : planner_(planner), units_(units), ranks_per_node_(ranks_per_node) {
    const auto seats = static_cast<std::size_t>(planner.seats());
    seats_.resize(seats);
    blocks_.resize(seats);
  }

  void run(Estimate& e) {
    e.steps = planner_.steps();
    e.by_step.resize(static_cast<std::size_t>(e.steps));
    for (int s = 0; s < planner_.steps(); ++s) {
      if (planner_.grid().travel == Travel::tree) {
        meet_all(s);
      } else {
        for (const int row : planner_.visits(s))
          for_row(planner_.grid(), row, [&](Rank seat, Rank origin) { meet(s, seat, origin); });
      }
      if (s > 0) move();
      compute(e, s);
    }
    for (const Seat& seat : seats_) {
      e.most_pairs = std::max(e.most_pairs, seat.all_pairs);
      e.nominal_seconds = std::max(e.nominal_seconds, seat.ready + seat.work);
      most_received = std::max(most_received, seat.all_rows);
      received += seat.all_rows;
    }
    e.compute_seconds = static_cast<double>(e.most_pairs) * units_.seconds_per_pair;
    merge(e);
  }

  Index received = 0, most_received = 0;              // rows of visiting blocks: of all seats, of the one with most
  Index merged = 0, most_merged = 0;                  // rows of partial results, likewise
  Index crossed = 0, merged_across = 0;               // those of them that came from another node

 private:
  struct Seat {
    double ready = 0, next = 0, work = 0;  // when its step began, when the next begins, seconds the step computes
    double out = 0, in = 0;                // seconds its link needs for what it sends and receives in this step
    double sent = 0;                       // when the last of its senders was in this step
    Index pairs = 0, rows = 0, all_pairs = 0, all_rows = 0;
    int busy = 0;  // the last step in which it worked
    Rank source = nobody;
  };
  struct Block {
    int step = 0;  // of its last use by a visitor
    Rank user = nobody;
    std::vector<Range> rows;
  };

  // All queries come to every seat: the work is what sees its keys.
  void meet_all(int s) {
    if (s == 0) return;
    const Index all = planner_.queries().tokens();
    for (Rank seat = 0; seat < planner_.seats(); ++seat) {
      Seat& here = seats_[static_cast<std::size_t>(seat)];
      here.pairs = planner_.pairs_of(seat);
      here.rows = all - planner_.queries().rows(seat);
      here.source = seat;
      here.in = static_cast<double>(here.rows) * units_.seconds_per_row;
      here.out = static_cast<double>(planner_.queries().rows(seat) * (planner_.seats() - 1)) * units_.seconds_per_row;
    }
    std::vector<Index> rows_of_node(static_cast<std::size_t>(node_of(planner_.seats() - 1)) + 1);
    for (Rank seat = 0; seat < planner_.seats(); ++seat)
      rows_of_node[static_cast<std::size_t>(node_of(seat))] += planner_.queries().rows(seat);
    for (Rank seat = 0; seat < planner_.seats(); ++seat)
      crossed += all - rows_of_node[static_cast<std::size_t>(node_of(seat))];
    double last = 0;
    for (const Seat& seat : seats_) last = std::max(last, seat.ready);
    for (Seat& seat : seats_) seat.sent = last;
  }

  // What the seat works on in step s, and where it comes from.
  void meet(int s, Rank seat, Rank origin) {
    Seat& here = seats_[static_cast<std::size_t>(seat)];
    const Travel travel = planner_.grid().travel;
    planner_.look(seat, origin, sight_);
    here.pairs += sight_.pairs;
    if (s == 0 || sight_.none()) return;
    const Index rows = count(sight_.rows);
    here.source = travel == Travel::gather ? origin : pass_on(s, seat, origin);
    const double seconds = static_cast<double>(rows) * units_.seconds_per_row;
    Seat& from = seats_[static_cast<std::size_t>(here.source)];
    from.out += seconds;
    here.in += seconds;
    here.rows += rows;
    here.sent = std::max(here.sent, from.ready);
    if (ranks_per_node_ < planner_.grid().ranks() && node_of(seat) != node_of(here.source)) crossed += rows;
  }

  Index node_of(Rank seat) const { return Index{seat} * planner_.grid().heads / ranks_per_node_; }

  // From whom the seat gets the rows it sees: the user before, where the chain goes on, or the owner.
  Rank pass_on(int s, Rank seat, Rank origin) {
    Block& block = blocks_[static_cast<std::size_t>(origin)];
    const bool linked = block.user != nobody && seats_[static_cast<std::size_t>(block.user)].busy == block.step &&
                        inside(sight_.rows, block.rows);
    const Rank source = linked ? block.user : origin;
    block.step = s;
    block.user = seat;
    block.rows.assign(sight_.rows.begin(), sight_.rows.end());
    return source;
  }

  // The exchange between the step before and this one.
  void move() {
    for (Seat& here : seats_) {
      if (here.source == nobody) continue;
      Seat& from = seats_[static_cast<std::size_t>(here.source)];
      const double takes = units_.latency + std::max({here.in, here.out, from.out});
      const double there = std::max(here.ready, here.sent) + takes;
      here.next = std::max({here.next, there, here.ready + here.work + (1 - units_.hidden) * takes});
      from.next = std::max(from.next, there);
    }
  }

  // Ends the step: counts it, and makes the seats ready for the next.
  void compute(Estimate& e, int s) {
    StepSum& sum = e.by_step[static_cast<std::size_t>(s)];
    Index rows = 0, most_rows = 0;
    for (Seat& seat : seats_) {
      seat.ready = seat.next;
      seat.work = static_cast<double>(seat.pairs) * units_.seconds_per_pair;
      seat.next = seat.ready + seat.work;
      seat.all_pairs += seat.pairs;
      seat.all_rows += seat.rows;
      if (seat.pairs > 0) seat.busy = s;
      sum.pairs += seat.pairs;
      sum.most_pairs = std::max(sum.most_pairs, seat.pairs);
      rows += seat.rows;
      most_rows = std::max(most_rows, seat.rows);
      seat.pairs = seat.rows = 0;
      seat.out = seat.in = seat.sent = 0;
      seat.source = nobody;
    }
    e.pairs += sum.pairs;
    e.path_pairs += sum.most_pairs;
    e.buffer_rows = std::max(e.buffer_rows, most_rows);
    if (s == 0) return;
    e.by_step[static_cast<std::size_t>(s) - 1].rows = rows;  // they travel in the batch of the step before
    e.by_step[static_cast<std::size_t>(s) - 1].most_rows = most_rows;
  }

  // The rounds after the steps; everybody waits for the largest.
  void merge(Estimate& e) {
    std::vector<Index> most(planner_.merges(0).size());
    for (Rank seat = 0; seat < planner_.seats() && !most.empty(); ++seat) {
      Index mine = 0;
      const auto rounds = planner_.merges(seat);
      for (std::size_t m = 0; m < rounds.size(); ++m) {
        const Index rows = count(rounds[m].receive);
        most[m] = std::max(most[m], rows);
        mine += rows;
        if (rows > 0 && node_of(seat) != node_of(rounds[m].peer)) merged_across += rows;
      }
      merged += mine;
      most_merged = std::max(most_merged, mine);
    }
    for (const Index rows : most)
      e.nominal_seconds += units_.latency + static_cast<double>(rows) * units_.seconds_per_merged_row;
  }

  const Planner& planner_;
  Units units_;
  int ranks_per_node_;
  std::vector<Seat> seats_;
  std::vector<Block> blocks_;  // by owner
  Sight sight_;
};

// Traces and gradients of the tree are those of a ring over the same shards.
Schedule ring_of(const Schedule& job) {
  Grid grid = job.grid;
  grid.travel = Travel::keys;
  return {grid, job.mask, job.queries, job.keys,
          Planner(grid, job.planner.queries(), job.planner.keys(), job.mask)};
}

}  // namespace

Estimate estimate(const Schedule& job, const Prices& p) {
  constexpr Index f32 = 4;
  const int lanes = job.grid.heads;
  const Index width = p.channels + p.value_channels, query_share = largest_query_share(p, lanes),
              kv_share = largest_kv_share(p, lanes);
  const bool queries = queries_travel(job.grid.travel), tree = job.grid.travel == Travel::tree;
  const bool backward = p.backward && !tree;
  // what travels once for every row that somebody uses: the row, and in f32 what is summed up for it
  const Index partial_row = query_share * (p.value_channels + 2) * f32;
  Index row_bytes = queries ? query_share * p.channels * p.element_bytes : kv_share * width * p.element_bytes;
  if (backward)  // once more in the backward pass
    row_bytes += queries ? query_share * (width * p.element_bytes + (2 + p.channels) * f32)
                         : kv_share * width * (p.element_bytes + f32);
  if (queries && !tree) row_bytes += partial_row;
  const double operations_per_pair = (backward ? 7.0 : 2.0) * static_cast<double>(width * query_share);
  Estimate e;
  e.row_bytes = row_bytes;
  Stream stream(job.planner,
                {operations_per_pair / p.operations_per_second, static_cast<double>(row_bytes) / p.bytes_per_second,
                 static_cast<double>(partial_row) / p.bytes_per_second, p.seconds_per_step, p.hidden},
                p.ranks_per_node);
  stream.run(e);
  e.block_bytes_received = stream.most_received * row_bytes + stream.most_merged * partial_row;
  e.total_bytes = (stream.received * row_bytes + stream.merged * partial_row) * lanes;
  e.node_bytes = (stream.crossed * row_bytes + stream.merged_across * partial_row) * lanes;
  const Index kv_row = kv_share * width;
  e.whole_bytes = job.mask.keys() * (job.planner.seats() - 1) * lanes *
                  (p.backward ? kv_row * (2 * p.element_bytes + f32) : kv_row * p.element_bytes);
  if (lanes > 1) {  // q, k, v in and out back: all but the own share of the heads
    const Index rows = job.queries.largest(), key_rows = job.keys.largest();
    const Index there = rows * p.query_heads * (p.channels * p.element_bytes + f32 * p.value_channels);
    e.exchange_bytes = (there + key_rows * p.kv_heads * width * p.element_bytes) / lanes * (lanes - 1);
    e.nominal_seconds += static_cast<double>(e.exchange_bytes) / p.bytes_per_second + 2 * p.seconds_per_step;
  }
  if (!tree || !p.backward) return e;
  const Schedule ring = ring_of(job);
  Prices forward = p;
  forward.backward = false;
  const Estimate both = estimate(ring, p), first = estimate(ring, forward);
  e.nominal_seconds += both.nominal_seconds - first.nominal_seconds;
  e.compute_seconds += both.compute_seconds - first.compute_seconds;
  e.block_bytes_received += both.block_bytes_received - first.block_bytes_received;
  e.total_bytes += both.total_bytes - first.total_bytes;
  e.node_bytes += both.node_bytes - first.node_bytes;
  e.buffer_rows = std::max(e.buffer_rows, both.buffer_rows);
  return e;
}

}  // namespace annulus

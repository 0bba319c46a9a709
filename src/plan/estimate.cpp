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
  double seconds_per_pair, seconds_per_row, seconds_per_gradient_row, latency, hidden;
};

// What is known of all seats while their steps go by.
class Stream {
 public:
  Stream(const Planner& planner, const Units& units) : planner_(planner), units_(units) {
    const auto seats = static_cast<std::size_t>(planner.seats());
    seats_.resize(seats);
    blocks_.resize(seats);
  }

  void run(Estimate& e) {
    e.steps = planner_.steps();
    e.by_step.resize(static_cast<std::size_t>(e.steps));
    for (int s = 0; s < planner_.steps(); ++s) {
      for_row(planner_.grid(), planner_.visit_of(s), [&](Rank seat, Rank origin) { meet(s, seat, origin); });
      if (s > 0) move();
      compute(e, s);
    }
    for (const Seat& seat : seats_) {
      e.most_pairs = std::max(e.most_pairs, seat.all_pairs);
      e.nominal_seconds = std::max(e.nominal_seconds, seat.ready + seat.work);
      most_received_ = std::max(most_received_, seat.all_rows);
      received_ += seat.all_rows;
    }
    e.compute_seconds = static_cast<double>(e.most_pairs) * units_.seconds_per_pair;
  }
  Index received() const { return received_; }
  Index most_received() const { return most_received_; }

 private:
  struct Seat {
    double ready = 0, next = 0, work = 0;  // when its step began, when the next begins, seconds the step computes
    double out = 0;                        // seconds its link needs for what it sends in this step
    Index pairs = 0, rows = 0, all_pairs = 0, all_rows = 0;
    int busy = 0;  // the last step in which it worked
    Rank source = nobody;
  };
  struct Block {
    int step = 0;  // of its last use by a visitor
    Rank user = nobody;
    std::vector<Range> rows;
  };

  // Whose block the seat works on in step s, and where it comes from.
  void meet(int s, Rank seat, Rank origin) {
    Seat& here = seats_[static_cast<std::size_t>(seat)];
    planner_.look(seat, origin, sight_);
    here.pairs = sight_.pairs;
    here.rows = 0;
    here.source = nobody;
    if (s == 0 || sight_.none()) return;
    here.rows = count(sight_.rows);
    Block& block = blocks_[static_cast<std::size_t>(origin)];
    const bool linked = block.user != nobody && seats_[static_cast<std::size_t>(block.user)].busy == block.step &&
                        inside(sight_.rows, block.rows);
    here.source = linked ? block.user : origin;
    seats_[static_cast<std::size_t>(here.source)].out += seconds(here.rows);
    block.step = s;
    block.user = seat;
    block.rows.assign(sight_.rows.begin(), sight_.rows.end());
  }

  double seconds(Index rows) const {
    return static_cast<double>(rows) * (units_.seconds_per_row + units_.seconds_per_gradient_row);
  }

  // The exchange between the step before and this one.
  void move() {
    for (Seat& seat : seats_) seat.next = seat.ready + seat.work;
    for (Seat& here : seats_) {
      if (here.source == nobody) continue;
      Seat& from = seats_[static_cast<std::size_t>(here.source)];
      const double takes = units_.latency + std::max(from.out, seconds(here.rows));
      const double there = std::max(here.ready, from.ready) + takes;
      here.next = std::max({here.next, there, here.ready + here.work + (1 - units_.hidden) * takes});
      from.next = std::max(from.next, there);
    }
    for (Seat& seat : seats_) {
      seat.ready = seat.next;
      seat.out = 0;
    }
  }

  void compute(Estimate& e, int s) {
    StepSum& sum = e.by_step[static_cast<std::size_t>(s)];
    for (Seat& seat : seats_) {
      seat.work = static_cast<double>(seat.pairs) * units_.seconds_per_pair;
      seat.all_pairs += seat.pairs;
      seat.all_rows += seat.rows;
      if (seat.pairs > 0) seat.busy = s;
      sum.pairs += seat.pairs;
      sum.most_pairs = std::max(sum.most_pairs, seat.pairs);
      if (s == 0) continue;
      StepSum& before = e.by_step[static_cast<std::size_t>(s) - 1];  // rows travel in the batch of the step before
      before.rows += seat.rows;
      before.most_rows = std::max(before.most_rows, seat.rows);
    }
    e.pairs += sum.pairs;
    e.path_pairs += sum.most_pairs;
    if (s > 0) e.buffer_rows = std::max(e.buffer_rows, e.by_step[static_cast<std::size_t>(s) - 1].most_rows);
  }

  const Planner& planner_;
  Units units_;
  std::vector<Seat> seats_;
  std::vector<Block> blocks_;  // by owner
  Sight sight_;
  Index received_ = 0, most_received_ = 0;
};

}  // namespace

Estimate estimate(const Schedule& job, const Prices& p) {
  const int lanes = job.grid.heads;
  const Index width = p.channels + p.value_channels;
  const Index row_bytes = largest_kv_share(p, lanes) * width * p.element_bytes;
  const double operations_per_pair =
      (p.backward ? 7.0 : 2.0) * static_cast<double>(width * largest_query_share(p, lanes));
  // backward: the gradients of every row that is used travel once more, in f32
  const double gradient_bytes = p.backward ? 4.0 * static_cast<double>(largest_kv_share(p, lanes) * width) : 0.0;
  Estimate e;
  Stream stream(job.planner,
                {operations_per_pair / p.operations_per_second, static_cast<double>(row_bytes) / p.bytes_per_second,
                 gradient_bytes / p.bytes_per_second, p.seconds_per_step, p.hidden});
  stream.run(e);
  e.block_bytes_received = stream.most_received() * row_bytes;
  e.total_bytes = stream.received() * row_bytes * lanes;
  if (lanes > 1) {  // q, k, v in and out back: all but the own share of the heads
    const Index rows = job.queries.largest(), key_rows = job.keys.largest();
    const Index there = rows * p.query_heads * (p.channels * p.element_bytes + 4 * p.value_channels);
    e.exchange_bytes = (there + key_rows * p.kv_heads * width * p.element_bytes) / lanes * (lanes - 1);
    e.nominal_seconds += static_cast<double>(e.exchange_bytes) / p.bytes_per_second + 2 * p.seconds_per_step;
  }
  return e;
}

}  // namespace annulus

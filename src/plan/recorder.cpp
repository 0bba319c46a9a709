#include "plan/recorder.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace annulus {
namespace {

void add(std::vector<Event>& events, std::string_view what, Index step, double begins, double ends) {
  if (ends > begins) events.push_back({what, step, begins, ends});
}

// Since the last event; one wait goes on.
void wait_until(std::vector<Event>& events, Index step, double ends) {
  const double begins = events.empty() ? 0 : events.back().end_seconds;
  if (!events.empty() && events.back().what == "wait" && events.back().step == step) {
    events.back().end_seconds = std::max(begins, ends);
  } else {
    add(events, "wait", step, begins, ends);
  }
}

// The ranks of one seat that are recorded exchange heads, one batch after another.
class Exchanges {
 public:
  Exchanges(const Schedule& job, Prediction& into, Index batch, double begins)
      : job_(job), into_(into), batch_(batch), now_(begins) {}

  // back: rows go to their owner, else they come from it
  void all(std::span<const Passes::Exchange> exchanges, bool back) {
    for (const Passes::Exchange& exchange : exchanges) {
      const double ends = now_ + exchange.seconds;
      for (std::size_t i = 0; i < into_.ranks.size(); ++i) one(static_cast<Rank>(i), exchange, back, ends);
      now_ = ends;
      ++batch_;
    }
  }
  // Everybody does the same for so long.
  void own(double seconds) {
    for (Prediction::OfRank& rank : into_.ranks) add(rank.events, "merge", 0, now_, now_ + seconds);
    now_ += seconds;
  }
  Index batch() const { return batch_; }
  double now() const { return now_; }

 private:
  void one(Rank rank, const Passes::Exchange& exchange, bool back, double ends) {
    Prediction::OfRank& here = into_.ranks[static_cast<std::size_t>(rank)];
    add(here.events, "wait", 0, now_, ends);
    const Partition& rows = exchange.keys ? job_.keys : job_.queries;
    const Rank first = job_.seat_of(rank) * job_.grid.heads;
    for (Rank peer = first; peer < first + job_.grid.heads; ++peer) {
      if (peer == rank) continue;
      for (const bool sent : {true, false}) {
        const Rank owner = sent == back ? peer : rank, user = sent == back ? rank : peer;
        const Index bytes = rows.rows(owner) * exchange.row_bytes[static_cast<std::size_t>(job_.lane_of(user))];
        if (bytes > 0) here.messages.push_back({sent, peer, bytes, batch_, 0, now_, ends});
      }
    }
  }
  const Schedule& job_;
  Prediction& into_;
  Index batch_;
  double now_;
};

}  // namespace

Recorder::Recorder(const Grid& grid, int ranks, int steps, bool with_sums)
    : heads_(grid.heads),
      ranks_(std::min(ranks, grid.ranks())),
      steps_(steps),
      with_sums_(with_sums),
      parts_(static_cast<std::size_t>(ceil_div(ranks_, heads_))) {}

void Recorder::blocks(const Span& span) {
  for (int i = 0, seat = span.seat, origin = span.origin; i < span.count;
       ++i, seat += span.stride, origin += span.stride)
    if (Part* here = part(seat)) here->origin = here->origin == nobody ? origin : std::min(here->origin, origin);
}

void Recorder::message(bool late, const Side& from, const Side& to, double bytes) {
  if (bytes <= 0 || (part(from.seat) == nullptr && part(to.seat) == nullptr)) return;
  auto& places = late ? places_later_ : places_now_;
  (late ? later_ : now_)
      .push_back({from, to, std::llround(bytes), batches_ + (late ? 1 : 0), places[{from.seat, to.seat}]++});
}

void Recorder::arrived(Rank seat, double seconds) {
  if (Part* here = part(seat)) here->arrived = std::max(here->arrived, seconds);
}

void Recorder::waited(Rank seat, double until) {
  if (Part* here = part(seat)) wait_until(here->of_lane.events, step_of(step_), until);
}

void Recorder::works(Rank seat, double ready, double computed, double done) {
  Part* here = part(seat);
  if (here == nullptr) return;
  add(here->of_lane.events, "compute", std::max<Rank>(here->origin, 0), ready, computed);
  add(here->of_lane.events, "merge", step_of(step_ + 1), computed, done);
  here->origin = nobody;
}

void Recorder::step() {
  for (const Flight& flight : now_) {
    const Part *from = part(flight.from.seat), *to = part(flight.to.seat);
    land(flight, from == nullptr ? 0 : from->arrived, to == nullptr ? 0 : to->arrived);
  }
  now_ = std::exchange(later_, {});
  for (Part& here : parts_) here.arrived = 0;
  places_now_.clear();
  places_later_.clear();
  if (++step_ > 0) batches_ += with_sums_ ? 2 : 1;
}

void Recorder::merge(double begins, double ends, double row_bytes) {
  for (Part& here : parts_) {
    wait_until(here.of_lane.events, step_of(step_), begins);
    add(here.of_lane.events, "merge", 0, begins, ends);
  }
  for (const Round& move : round_)
    land({{move.from, begins},
          {move.to, begins},
          std::llround(static_cast<double>(move.rows) * row_bytes),
          batches_ + 1,
          0},
         ends, ends);
  round_.clear();
  ++batches_;
}

void Recorder::end(double seconds) {
  seconds_ = seconds;
  for (Part& here : parts_) wait_until(here.of_lane.events, step_of(steps_), seconds);
}

void Recorder::land(const Flight& f, double sent, double received) {
  if (Part* from = part(f.from.seat))
    from->of_lane.messages.push_back({true, f.to.seat, f.bytes, f.batch, f.place, f.from.begins, sent});
  if (Part* to = part(f.to.seat))
    to->of_lane.messages.push_back({false, f.from.seat, f.bytes, f.batch, f.place, f.to.begins, received});
}

// After the last step sums still come home.
Index Recorder::step_of(int step) const { return std::clamp(step, 0, std::max(0, steps_ - 1)); }

Index Recorder::write(const Schedule& job, const Passes& passes, const Passes::Pass& pass, const Start& start,
                      Prediction& into) const {
  const Index largest = std::ranges::max(passes.shares);
  Exchanges before(job, into, start.batch, start.begins);
  before.all(pass.before, false);
  for (Rank rank = 0; rank < ranks_; ++rank) {
    const Part& part = parts_[static_cast<std::size_t>(job.seat_of(rank))];
    Prediction::OfRank& here = into.ranks[static_cast<std::size_t>(rank)];
    for (const Event& event : part.of_lane.events)
      add(here.events, event.what, event.step, before.now() + event.begin_seconds, before.now() + event.end_seconds);
    const Index share = passes.shares[static_cast<std::size_t>(job.lane_of(rank))];
    for (Message message : part.of_lane.messages) {
      if (share == 0) break;
      message.bytes = message.bytes / largest * share;
      message.peer = message.peer * heads_ + job.lane_of(rank);
      message.batch += before.batch();
      message.begin_seconds += before.now();
      message.end_seconds += before.now();
      here.messages.push_back(message);
    }
  }
  Exchanges after(job, into, before.batch() + batches_, before.now() + seconds_);
  after.own(pass.own_seconds);
  after.all(pass.after, true);
  return after.batch();
}

}  // namespace annulus

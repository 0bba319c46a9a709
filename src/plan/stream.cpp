#include "plan/stream.hpp"

#include <algorithm>
#include <numeric>

namespace annulus {

Stream::Stream(const Schedule& job, const Prices& prices, const Passes& passes, const Recording& recording)
    : planner_(job.planner),
      grid_(job.grid),
      paces_(job, prices),
      tiles_(planner_.stays(), planner_.travels(), planner_.seen(), &paces_, passes.backward.has_value()),
      spans_(job.planner, tiles_),
      seats_(index(planner_.seats())),
      slowness_(seat_slowness(job.grid, prices)),
      most_looks_(prices.most_looks),
      blocks_(seats_.size()),
      nodes_(nodes_of(job.grid, prices)) {
  clocks_.emplace_back(prices, grid_, passes.forward.block_bytes, passes.forward.sum_bytes);
  if (passes.backward) clocks_.emplace_back(prices, grid_, passes.backward->block_bytes, passes.backward->sum_bytes);
  sight_.paces = &paces_;
  sight_.backward = clocks_.size() > 1;
  with_sums_ = std::ranges::any_of(clocks_, &Clock::with_sums);
  if (recording.into == nullptr) return;
  const auto ranks = static_cast<int>(recording.into->ranks.size());
  for (Clock& clock : clocks_) recorders_.emplace_back(grid_, ranks, planner_.steps(), clock.with_sums());
  for (std::size_t i = 0; i < clocks_.size(); ++i) clocks_[i].record(&recorders_[i]);
}

void Stream::run(Estimate& e) {
  e.steps = planner_.steps();
  e.by_step.resize(index(planner_.steps()));
  if (planner_.looks() > most_looks_) every_ = static_cast<int>(ceil_div(5 * planner_.looks(), most_looks_));
  while (std::gcd(every_, grid_.inner) > 1) ++every_;  // not always the same place of the inner rings
  e.sampled_every = every_;
  for (int first = 0; first < planner_.steps(); first += alike_) {
    alike_ = first <= 1 ? 1 : std::min(every_, planner_.steps() - first);  // the first steps are like no other
    step_ = first + alike_ / 2;
    go_home();
    if (grid_.travel == Travel::tree && step_ > 0) gather_all();
    const auto visits = planner_.visits(step_);
    const auto stride = grid_.travel == Travel::tree && step_ > 0 ? static_cast<std::size_t>(every_) : 1;
    if (stride > 1) alike_ = every_;  // of what one step does
    for (Clock& clock : clocks_) clock.repeat(alike_);
    for (std::size_t i = stride / 2; i < visits.size(); i += stride)
      spans_.for_row(visits[i], [&](const Span& span) { meet(span); });
    end_step(e, first);
  }
  for (Clock& clock : clocks_) clock.repeat(1);
  last_homes();
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    const Seat& seat = seats_[i];
    e.longest = std::max(e.longest, static_cast<double>(seat.all_pairs) * slowness_[i]);
  }
  if (every_ > 1) e.pairs = planner_.seen().pairs();
  merge();
  e.forward = clocks_.front().end();
  if (clocks_.size() > 1) e.backward = clocks_.back().end();
}

std::vector<double> Stream::bytes_received(std::size_t first_pass) const {
  std::vector<double> bytes(seats_.size());
  for (std::size_t pass = first_pass; pass < clocks_.size(); ++pass)
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] += clocks_[pass].received(static_cast<Rank>(i));
  return bytes;
}

// All queries come to every seat.
void Stream::gather_all() {
  const Partition& queries = planner_.queries();
  std::vector<Index> rows, rows_of_node(nodes_.empty() ? 0 : index(nodes_.back()) + 1);
  for (Rank seat = 0; seat < planner_.seats(); ++seat) {
    rows.push_back(queries.rows(seat));
    add(seat, 0, queries.tokens() - rows.back());
    if (!nodes_.empty()) rows_of_node[index(nodes_[index(seat)])] += rows.back();
  }
  clocks_.front().gather_all(rows);
  clocks_.front().work(0, 1, planner_.seats(), 0, queries.tokens());  // cleared: what will be known of all of them
  for (const Rank node : nodes_) crossed += queries.tokens() - rows_of_node[index(node)];
  const auto first = static_cast<Rank>(std::ranges::find_if(rows, [](Index r) { return r > 0; }) - rows.begin());
  for (Recorder& recorder : recorders_)
    for (Rank seat = 0; seat < recorder.seats(); ++seat) recorder.blocks({seat, first, 1, 1});
}

// What the seat sees of the block. A seat of thousands of ranks sees everything, in tiles as small as their runs.
void Stream::look(Rank seat, Rank origin) {
  constexpr std::size_t many = 4096;
  const auto runs = planner_.stays().runs(seat);
  if (planner_.seats() > 1 || runs.size() <= many)
    return tiles_.serves() ? tiles_.look(runs, planner_.travels().runs(origin), sight_)
                           : planner_.look(seat, origin, sight_);
  const Index rows = runs.front().count;
  sight_.rows = {{0, planner_.travels().rows(origin)}};
  sight_.pairs = planner_.seen().pairs();
  sight_.forward_seconds = paces_.forward.full(rows, rows, sight_.pairs);
  sight_.backward_seconds = paces_.backward.full(rows, rows, sight_.pairs);
}

// What the seats work on in this step, and where it comes from.
void Stream::meet(const Span& span) {
  look(span.seat, span.origin);
  if (sight_.none()) return;
  const bool visits = step_ > 0 && grid_.travel != Travel::tree;
  const Index rows = visits ? count(sight_.rows) : 0;
  for (Recorder& recorder : recorders_) recorder.blocks(span);
  for (int i = 0, seat = span.seat; i < span.count; ++i, seat += span.stride) add(seat, sight_.pairs, rows);
  clocks_.front().work(span.seat, span.stride, span.count, sight_.forward_seconds, rows);
  if (sight_.backward) clocks_.back().work(span.seat, span.stride, span.count, sight_.backward_seconds, rows);
  if (!visits) return;
  if (grid_.travel == Travel::gather) {
    arrive({span.seat, span.origin, span.stride, span.count}, rows);
    if (with_sums_) homes_.push_back({{span.origin, span.seat, span.stride, span.count}, rows});
  } else if (every_ == 1) {
    pass_on(span, rows);
  } else {
    pass_on_alike(span, rows);
  }
}

void Stream::arrive(const Messages& m, Index rows) {
  for (Clock& clock : clocks_) clock.block(m, rows);
  Index crossing = 0;
  for (int i = 0, to = m.to, from = m.from; !nodes_.empty() && i < m.count; ++i, to += m.stride, from += m.stride)
    crossing += nodes_[index(to)] != nodes_[index(from)] ? 1 : 0;
  crossed += crossing * rows * alike_;
}

// From whom the seats get the rows they see: the user before, where the chain goes on, or the owner.
void Stream::pass_on(const Span& span, Index rows) {
  const int list = lists_.hold(sight_.rows, span.count);
  for (Span part = span, rest = span; rest.count > 0;) {
    part = rest;
    const Block before = blocks_[index(rest.origin)];
    const bool goes_on = before.user != nobody && seats_[index(before.user)].busy == before.step;
    // blocks with the same past; one by one where several rows of sums may come to a seat, which are added in the order of seats
    for (part.count = 1; part.count < rest.count && planner_.ordinary(); ++part.count) {
      const int on = part.count * rest.stride;
      const Block& other = blocks_[index(rest.origin + on)];
      if (other != Block{before.step, before.user == nobody ? nobody : before.user + on, before.rows}) break;
      if (other.user != nobody && (seats_[index(other.user)].busy == other.step) != goes_on) break;
    }
    const bool linked = goes_on && (list == before.rows || inside(sight_.rows, lists_.rows(before.rows)));
    arrive({part.seat, linked ? before.user : part.origin, part.stride, part.count}, rows);
    if (before.user != nobody) {
      if (with_sums_) leave(part, before, linked ? rows : 0);
      lists_.release(before.rows, part.count);
    }
    for (int i = 0; i < part.count; ++i)
      blocks_[index(part.origin + i * part.stride)] = {step_, part.seat + i * part.stride, list};
    const int on = part.count * rest.stride;
    rest = {rest.seat + on, rest.origin + on, rest.stride, rest.count - part.count};
  }
}

// The same where not every step is looked at: only the step before is, and the first seat speaks for the span.
void Stream::pass_on_alike(Span span, Index rows) {
  const std::vector<Range> seen = sight_.rows;
  const int row = planner_.visits(step_).front();
  while (span.count > 0) {
    Span part = span;
    const Rank before = host(grid_, row - 1, span.origin);
    if (host(grid_, row - 1, span.origin + (span.count - 1) * span.stride) != before + (span.count - 1) * span.stride)
      part.count = 1;                          // the first of a ring gets its block from the last
    if (!planner_.ordinary()) part.count = 1;  // those before need not be alike
    look(before, span.origin);
    const bool used = !sight_.none() && before != span.origin, linked = used && inside(seen, sight_.rows);
    arrive({part.seat, linked ? before : part.origin, part.stride, part.count}, rows);
    const Index riding = linked ? rows : 0, home = used ? count(sight_.rows) - riding : 0;
    for (Clock& clock : clocks_) {
      if (!clock.with_sums()) continue;
      if (riding > 0) clock.sums({part.seat, before, part.stride, part.count}, riding);
      if (home > 0) clock.sums({part.origin, before, part.stride, part.count}, home);
    }
    const int on = part.count * span.stride;
    span = {span.seat + on, span.origin + on, span.stride, span.count - part.count};
  }
}

// The sums of the users before: those of so many rows ride on, the others go home.
void Stream::leave(const Span& span, const Block& before, Index riding) {
  const Index home = lists_.count(before.rows) - riding;
  for (Clock& clock : clocks_) {
    if (!clock.with_sums()) continue;
    if (riding > 0) clock.sums({span.seat, before.user, span.stride, span.count}, riding);
    if (home > 0) clock.sums({span.origin, before.user, span.stride, span.count}, home);
  }
}

// Sums of what was gathered in the step before.
void Stream::go_home() {
  for (Clock& clock : clocks_)
    if (clock.with_sums())
      for (const Home& home : homes_) clock.sums(home.messages, home.rows);
  homes_.clear();
}

// Sums of the last use of each block.
void Stream::last_homes() {
  go_home();
  for (Clock& clock : clocks_) {
    if (!clock.with_sums()) continue;
    for (Rank owner = 0; owner < planner_.seats(); ++owner)
      if (const Block& block = blocks_[index(owner)]; block.user != nobody)
        clock.sums({owner, block.user, 1, 1}, lists_.count(block.rows));
  }
}

// Counts the step and those like it, from `first` on, and lets the seats go on.
void Stream::end_step(Estimate& e, int first) {
  StepSum sum;
  Index rows = 0, most_rows = 0;
  for (const Rank i : here_) {
    Seat& seat = seats_[index(i)];
    if (grid_.travel == Travel::tree) seat.pairs *= alike_;
    seat.all_pairs += seat.pairs * steps_alike();
    if (seat.pairs > 0) seat.busy = step_;
    sum.pairs += seat.pairs;
    sum.most_pairs = std::max(sum.most_pairs, seat.pairs);
    sum.longest = std::max(sum.longest, static_cast<double>(seat.pairs) * slowness_[index(i)]);
    rows += seat.rows;
    most_rows = std::max(most_rows, seat.rows);
    seat.pairs = seat.rows = 0;
    seat.here = false;
  }
  here_.clear();
  for (Clock& clock : clocks_) clock.step();
  received += rows * steps_alike();
  e.pairs += sum.pairs * steps_alike();
  e.path_pairs += sum.longest * steps_alike();
  e.buffer_rows = std::max(e.buffer_rows, most_rows);
  for (int step = first; step < first + steps_alike(); ++step) {
    e.by_step[index(step)].pairs = sum.pairs;
    e.by_step[index(step)].most_pairs = sum.most_pairs;
    e.by_step[index(step)].longest = sum.longest;
    if (step == 0) continue;
    e.by_step[index(step) - 1].rows = rows;  // they travel in the batch of the step before
    e.by_step[index(step) - 1].most_rows = most_rows;
  }
}

// The rounds after the steps; everybody waits for the largest.
void Stream::merge() {
  struct Round {
    Index most = 0;
    bool across = false;
  };
  std::vector<Round> all(planner_.merges(0).size());
  for (Rank seat = 0; seat < planner_.seats() && !all.empty(); seat += every_) {
    Index mine = 0;
    const auto rounds = planner_.merges(seat);
    for (std::size_t m = 0; m < rounds.size(); ++m) {
      const Index rows = count(rounds[m].receive);
      const bool crosses = rows > 0 && across(seat, rounds[m].peer);
      all[m] = {std::max(all[m].most, rows), all[m].across || crosses};
      mine += rows;
      if (crosses) merged_across += rows * every_;
    }
    merged += mine * every_;
    clocks_.front().merges(seat, mine);
  }
  for (std::size_t m = 0; m < all.size(); ++m) {
    if (!recorders_.empty()) record_merge(m);
    clocks_.front().merge(all[m].most, all[m].across);
  }
}

// The round's messages of the seats that are recorded; those between two of them once.
void Stream::record_merge(std::size_t round) {
  Recorder& recorder = recorders_.front();
  for (Rank seat = 0; seat < recorder.seats(); ++seat) {
    const Merge merge = planner_.merges(seat)[round];
    if (merge.peer == nobody) continue;
    recorder.merge_message(seat, merge.peer, count(merge.send));
    if (merge.peer >= recorder.seats()) recorder.merge_message(merge.peer, seat, count(merge.receive));
  }
}

}  // namespace annulus

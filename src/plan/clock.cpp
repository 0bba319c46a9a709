#include "plan/clock.hpp"

#include <algorithm>

namespace annulus {
namespace {

// When a message of so many seconds is there that begins at `begin`, both sides computing until `computed`.
double arrival(double begin, double computed, double takes, const LinkPrice& link) {
  if (link.at_once || link.hidden >= 1) return begin + takes;
  const double beside = link.hidden * std::max(0.0, computed - begin);
  return beside >= takes ? begin + takes / link.hidden : std::max(begin, computed) + takes - beside;
}

// What is left of it for a side that has computed for `busy` seconds.
double left(double busy, double takes, const LinkPrice& link) { return std::max(0.0, takes - link.hidden * busy); }

}  // namespace

Clock::Clock(const Prices& p, const Grid& grid, Index block_bytes, Index sum_bytes)
    : seats_(static_cast<std::size_t>(grid.seats())),
      near_(p.near),
      far_(p.far),
      block_bytes_(static_cast<double>(block_bytes)),
      sum_bytes_(static_cast<double>(sum_bytes)),
      seconds_per_byte_(1 / p.memory_bytes_per_second),
      heads_(grid.heads),
      ranks_per_node_(p.ranks_per_node),
      workers_(p.workers_per_node),
      ports_(p.network_ports),
      ranks_here_(std::min(p.ranks_per_node, grid.ranks())),
      several_nodes_(p.ranks_per_node < grid.ranks()) {
  const double crowd = std::max(1.0, static_cast<double>(ranks_here_) / workers_);
  near_.bytes_per_second /= crowd;  // a copy is work, too
  seconds_per_byte_ *= crowd;
  if (several_nodes_ && ports_ < ranks_here_)
    out_.resize(static_cast<std::size_t>(node_of(grid.seats() - 1)) + 1), in_ = out_;
}

void Clock::all_begin(double seconds) {
  for (Seat& seat : seats_) seat.ready = seconds;
}

void Clock::send(Load Seat::*when, Rank to, Rank from, double bytes, double sent) {
  Load &there = at(to).*when, &here = at(from).*when;
  const bool across = several_nodes_ && node_of(to) != node_of(from);
  const LinkPrice& link = across ? far_ : near_;
  Traffic& arrives = across ? there.far : there.near;
  const double seconds = bytes / link.bytes_per_second;
  arrives.in += seconds;
  arrives.latency += link.latency_seconds;
  (across ? here.far : here.near).out += seconds;
  there.source = from;
  there.sent = std::max(there.sent, sent);
  there.computed = std::max(there.computed, at(from).ready + at(from).busy);
}

void Clock::block(Rank to, Rank from, Index rows) {
  send(&Seat::now, to, from, static_cast<double>(rows) * block_bytes_, at(from).ready);
}

void Clock::sums(Rank to, Rank from, Index rows) {
  const double bytes = static_cast<double>(rows) * sum_bytes_;
  send(&Seat::later, to, from, bytes, at(from).ready + at(from).busy);
  at(to).extra += 3 * bytes * seconds_per_byte_;  // added: two read, one written
}

void Clock::home(Rank owner, Rank from, Index rows) { sums(owner, from, rows); }

void Clock::work(Rank seat, double seconds, Index held_rows) {
  at(seat).work += seconds;
  at(seat).extra += static_cast<double>(held_rows) * sum_bytes_ * seconds_per_byte_;
}

// The rest of a seat's step: its own share of the messages, and the arrival of what others send.
void Clock::wait(Seat& seat) {
  const Load& load = seat.now;
  const double done = seat.ready + seat.busy;
  const auto own = [](const Traffic& t) { return t.latency + std::max(t.in, t.out); };
  double next = done;
  if (load.near.any()) next += left(seat.busy, own(load.near), near_);
  if (load.far.any()) next += left(seat.busy, own(load.far), far_);
  seat.next = std::max(seat.next, next);
  if (load.source == nobody) return;
  Seat& from = at(load.source);
  const double begin = std::max(seat.ready, load.sent), computed = std::max(done, load.computed);
  const auto there = [&](const Traffic& t, const Traffic& sender, const LinkPrice& link) {
    return t.in > 0 ? arrival(begin, computed, std::max(own(t), t.latency + sender.out), link) : begin;
  };
  next = std::max(there(load.near, from.now.near, near_), there(load.far, from.now.far, far_));
  seat.next = std::max(seat.next, next);
  from.next = std::max(from.next, next);
}

void Clock::step() {
  if (!out_.empty()) share_ports();
  for (Seat& seat : seats_) wait(seat);
  for (Seat& seat : seats_) {
    seat.ready = seat.next;
    seat.busy = seat.work;
    seat.now = seat.later;
    seat.later = {};
    seat.next = seat.work = 0;
  }
  if (workers_ < ranks_here_) share_cores();
  for (Seat& seat : seats_) {
    seat.compute += seat.busy;
    seat.busy += seat.extra;
    seat.extra = 0;
  }
}

void Clock::gather_all(std::span<const Index> rows) {
  std::vector<double> of_node(static_cast<std::size_t>(node_of(static_cast<Rank>(rows.size()) - 1)) + 1);
  std::vector<Index> seats_of_node(of_node.size());
  double all = 0, last = 0;
  for (const Seat& seat : seats_) last = std::max(last, seat.ready);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double bytes = static_cast<double>(rows[i]) * block_bytes_;
    all += bytes;
    of_node[static_cast<std::size_t>(node_of(static_cast<Rank>(i)))] += bytes;
    ++seats_of_node[static_cast<std::size_t>(node_of(static_cast<Rank>(i)))];
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto node = static_cast<std::size_t>(node_of(static_cast<Rank>(i)));
    const double own = static_cast<double>(rows[i]) * block_bytes_;
    const auto inside = static_cast<double>(seats_of_node[node] - 1),
               outside = static_cast<double>(rows.size()) - 1 - inside;
    Load& load = seats_[i].now;
    load.near = {(of_node[node] - own) / near_.bytes_per_second, own * inside / near_.bytes_per_second,
                 inside * near_.latency_seconds};
    load.far = {(all - of_node[node]) / far_.bytes_per_second, own * outside / far_.bytes_per_second,
                outside * far_.latency_seconds};
    load.source = static_cast<Rank>(i);
    load.sent = last;
  }
}

// More ranks than workers: those that still compute share them evenly, as if all had begun at the same time.
void Clock::share_cores() {
  std::vector<Seat*> order;
  const auto seats = static_cast<Rank>(seats_.size());
  for (Rank first = 0, last = 0; first < seats; first = last) {
    order.clear();
    for (; last < seats && node_of(last) == node_of(first); ++last) order.push_back(&at(last));
    std::ranges::sort(order, {}, &Seat::busy);
    const int lanes = std::min(heads_, ranks_per_node_);
    double begun = 0, now = 0;
    auto computing = static_cast<double>(order.size()) * lanes;
    for (Seat* seat : order) {
      now += (seat->busy - begun) * std::max(1.0, computing / workers_);
      begun = seat->busy;
      seat->busy = now;
      computing -= lanes;
    }
  }
}

// Fewer ports than ranks: what the ranks of a node send and receive together.
void Clock::share_ports() {
  std::ranges::fill(out_, 0);
  std::ranges::fill(in_, 0);
  const int lanes = std::min(heads_, ranks_per_node_);
  for (Rank seat = 0; seat < static_cast<Rank>(seats_.size()); ++seat) {
    const auto node = static_cast<std::size_t>(node_of(seat));
    out_[node] += at(seat).now.far.out * lanes / ports_;
    in_[node] += at(seat).now.far.in * lanes / ports_;
  }
  for (Rank seat = 0; seat < static_cast<Rank>(seats_.size()); ++seat) {
    const auto node = static_cast<std::size_t>(node_of(seat));
    Traffic& load = at(seat).now.far;
    if (load.out > 0) load.out = std::max(load.out, out_[node]);
    if (load.in > 0) load.in = std::max(load.in, in_[node]);
  }
}

void Clock::merge(Index most_rows, bool across) {
  double last = 0;
  for (const Seat& seat : seats_) last = std::max(last, seat.ready + seat.busy);
  const LinkPrice& link = across ? far_ : near_;
  const double bytes = static_cast<double>(most_rows) * sum_bytes_;
  const double crowd = across ? std::max(1.0, static_cast<double>(ranks_here_) / ports_) : 1;
  const double takes = link.latency_seconds + bytes * crowd / link.bytes_per_second + 3 * bytes * seconds_per_byte_;
  for (Seat& seat : seats_) seat.ready = last + takes, seat.busy = 0;
}

PassTime Clock::end() {
  step();
  step();
  PassTime time;
  for (const Seat& seat : seats_) {
    time.seconds = std::max(time.seconds, seat.ready);
    time.compute_seconds = std::max(time.compute_seconds, seat.compute);
  }
  return time;
}

}  // namespace annulus

#include "plan/clock.hpp"

#include <algorithm>
#include <utility>

#include "plan/recorder.hpp"

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

// When that side has done its own part of it, counted from its beginning.
double own_end(double busy, double takes, const LinkPrice& link) {
  const double rest = left(busy, takes, link);
  return takes <= 0 ? 0 : rest > 0 ? busy + rest : takes / link.hidden;
}

}  // namespace

std::vector<Rank> nodes_of(const Grid& grid, const Prices& prices) {
  std::vector<Rank> nodes;
  if (prices.ranks_per_node < grid.ranks())
    for (Rank seat = 0; seat < grid.seats(); ++seat)
      nodes.push_back(static_cast<Rank>(Index{seat} * grid.heads / prices.ranks_per_node));
  return nodes;
}

Clock::Clock(const Prices& p, const Grid& grid, Index block_bytes, Index sum_bytes)
    : seats_(index(grid.seats())),
      now_(seats_.size()),
      later_(sum_bytes > 0 ? seats_.size() : 0),
      nodes_(nodes_of(grid, p)),
      near_(p.near),
      far_(p.far),
      block_bytes_(static_cast<double>(block_bytes)),
      sum_bytes_(static_cast<double>(sum_bytes)),
      seconds_per_byte_(1 / p.memory_bytes_per_second),
      heads_(grid.heads),
      ranks_per_node_(p.ranks_per_node),
      workers_(p.workers_per_node),
      ports_(p.network_ports),
      ranks_here_(std::min(p.ranks_per_node, grid.ranks())) {
  const std::vector<double> slowness = seat_slowness(grid, p);
  for (std::size_t i = 0; i < seats_.size(); ++i) seats_[i].slowness = slowness[i];
  const double crowd = std::max(1.0, static_cast<double>(ranks_here_) / workers_);
  near_.bytes_per_second /= crowd;  // a copy is work, too
  seconds_per_byte_ *= crowd;
  if (!nodes_.empty() && ports_ < ranks_here_) in_ = out_ = std::vector<double>(index(nodes_.back()) + 1);
}

void Clock::send(std::vector<Load>& loads, const Messages& m, double bytes, double Seat::*sent) {
  const double near_out = steps_ * bytes / near_.bytes_per_second, near_latency = steps_ * near_.latency(bytes),
               far_out = steps_ * bytes / far_.bytes_per_second, far_latency = steps_ * far_.latency(bytes);
  for (int i = 0, to = m.to, from = m.from; i < m.count; ++i, to += m.stride, from += m.stride) {
    Load &there = loads[index(to)], &here = loads[index(from)];
    const bool across = !nodes_.empty() && nodes_[index(to)] != nodes_[index(from)];
    Traffic& arrives = across ? there.far : there.near;
    const double out = across ? far_out : near_out, latency = across ? far_latency : near_latency;
    arrives.in += out + (across ? std::max(0.0, latency - arrives.latency) : latency);
    arrives.latency = std::max(arrives.latency, latency);
    (across ? here.far : here.near).out += out;
    wake(to).received += steps_ * bytes;
    const Seat& sender = wake(from);
    there.source = from;
    there.sent = std::max(there.sent, sender.*sent);
    there.computed = std::max(there.computed, sender.done);
  }
}

void Clock::block(const Messages& messages, Index rows) {
  const double bytes = static_cast<double>(rows) * block_bytes_;
  send(now_, messages, bytes, &Seat::ready);
  if (recorder_ != nullptr) record(messages, bytes, false);
}

void Clock::sums(const Messages& m, Index rows) {
  const double bytes = static_cast<double>(rows) * sum_bytes_;
  send(later_, m, bytes, &Seat::done);
  if (recorder_ != nullptr) record(m, bytes, true);
  for (int i = 0, to = m.to, from = m.from; i < m.count; ++i, to += m.stride, from += m.stride) {
    Seat& seat = seats_[index(to)];
    seat.extra += 3 * steps_ * bytes * seconds_per_byte_;  // added: two read, one written
    seat.later = seats_[index(from)].later = true;
  }
}

void Clock::record(const Messages& m, double bytes, bool late) {
  double Seat::*const begins = late ? &Seat::done : &Seat::ready;
  for (int i = 0, to = m.to, from = m.from; i < m.count; ++i, to += m.stride, from += m.stride)
    recorder_->message(late, {from, seats_[index(from)].*begins}, {to, seats_[index(to)].*begins}, bytes);
}

void Clock::work(Rank first, int stride, int count, double seconds, Index held_rows) {
  const double clears = steps_ * static_cast<double>(held_rows) * sum_bytes_ * seconds_per_byte_;
  seconds *= steps_;
  for (int i = 0, seat = first; i < count; ++i, seat += stride) {
    Seat& worker = wake(seat);
    worker.work += seconds * worker.slowness;
    worker.extra += clears;
  }
}

void Clock::gather_all(std::span<const Index> rows) {
  const auto node = [&](std::size_t seat) { return nodes_.empty() ? 0U : index(nodes_[seat]); };
  std::vector<double> of_node(node(rows.size() - 1) + 1);
  std::vector<Index> seats_of_node(of_node.size());
  double all = 0, last = 0, most = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double bytes = static_cast<double>(rows[i]) * block_bytes_;
    all += bytes;
    most = std::max(most, bytes);
    of_node[node(i)] += bytes;
    ++seats_of_node[node(i)];
    last = std::max(last, seats_[i].ready);
  }
  const double near_latency = near_.latency(most), far_latency = far_.latency(most);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double own = static_cast<double>(rows[i]) * block_bytes_;
    const auto inside = static_cast<double>(seats_of_node[node(i)] - 1),
               outside = static_cast<double>(rows.size()) - 1 - inside;
    Load& load = now_[i];
    load.near = {(of_node[node(i)] - own) / near_.bytes_per_second + inside * near_latency,
                 own * inside / near_.bytes_per_second, near_latency};
    load.far = {(all - of_node[node(i)]) / far_.bytes_per_second + (outside > 0 ? far_latency : 0),
                own * outside / far_.bytes_per_second, far_latency};
    load.source = static_cast<Rank>(i);
    load.sent = last;
    wake(load.source).received += all - own;
  }
  if (recorder_ != nullptr) record_gathering(rows);
}

void Clock::record_gathering(std::span<const Index> rows) {
  const auto seats = static_cast<Rank>(rows.size());
  for (Rank from = 0; from < seats; ++from)
    for (Rank to = 0; to < (from < recorder_->seats() ? seats : recorder_->seats()); ++to)
      if (from != to)
        recorder_->message(false, {from, seats_[index(from)].ready}, {to, seats_[index(to)].ready},
                           static_cast<double>(rows[index(from)]) * block_bytes_);
}

// The rest of a seat's step: its own share of the messages, and the arrival of what others send.
template <bool recorded>
void Clock::wait(std::size_t i) {
  const Load& load = now_[i];
  Seat& seat = seats_[i];
  const auto own = [](const Traffic& t) { return std::max(t.in, t.out); };
  const double near = own(load.near), across = own(load.far);
  double next = seat.done;  // copying inside the node hides what crosses as computing does
  if (near > 0) next += left(next - seat.ready, near, near_);
  if (across > 0) next += left(next - seat.ready, across, far_);
  seat.next = std::max(seat.next, next);
  if constexpr (recorded) record_arrival(i, near, across);
  if (load.source == nobody) return;
  const Traffic &near_from = now_[index(load.source)].near, &far_from = now_[index(load.source)].far;
  const double begin = std::max(seat.ready, load.sent), computed = std::max(seat.done, load.computed);
  double there = begin;
  if (load.near.in > 0) there = arrival(begin, computed, std::max(near, near_from.out + load.near.latency), near_);
  if (load.far.in > 0)
    there = std::max(there, arrival(begin, computed, std::max(across, far_from.out + load.far.latency), far_));
  seat.next = std::max(seat.next, there);
  Seat& from = seats_[index(load.source)];
  from.next = std::max(from.next, there);
  if constexpr (recorded) {
    recorder_->arrived(static_cast<Rank>(i), there);
    recorder_->arrived(load.source, there);
  }
}

// When the seat has done its own share.
void Clock::record_arrival(std::size_t i, double near, double across) {
  const Seat& seat = seats_[i];
  const double busy = seat.done - seat.ready, rest = near > 0 ? left(busy, near, near_) : 0;
  recorder_->arrived(static_cast<Rank>(i),
                     seat.ready + std::max(own_end(busy, near, near_), own_end(busy + rest, across, far_)));
}

void Clock::step() {
  const bool recorded = recorder_ != nullptr;
  for (Rank i = 0; recorded && i < recorder_->seats(); ++i) wake(i);
  if (!std::ranges::is_sorted(awake_)) std::ranges::sort(awake_);  // as memory is, and sums of nodes are rounded alike
  if (!out_.empty()) share_ports();
  for (const Rank i : awake_) recorded ? wait<true>(index(i)) : wait<false>(index(i));
  if (workers_ < ranks_here_) share_cores();
  if (recorded) record_step();
  std::erase_if(awake_, [&](Rank i) {
    now_[index(i)] = Load{};
    Seat& seat = seats_[index(i)];
    go_on(seat);
    seat.awake = std::exchange(seat.later, false) || seat.done > seat.ready;
    return !seat.awake;
  });
  if (!later_.empty()) std::swap(now_, later_);
}

void Clock::go_on(Seat& seat) {
  seat.ready = seat.next;
  seat.compute += seat.work;
  seat.done = seat.ready + seat.work + seat.extra;
  seat.next = seat.work = seat.extra = 0;
}

void Clock::record_step() {
  for (Rank i = 0; i < recorder_->seats(); ++i) {
    const Seat& seat = seats_[index(i)];
    recorder_->waited(i, seat.next);
    recorder_->works(i, seat.next, seat.next + seat.work, seat.next + seat.work + seat.extra);
  }
  recorder_->step();
}

// More ranks than workers: those that still compute share them evenly, as if all had begun at the same time.
void Clock::share_cores() {
  std::vector<Seat*> order;
  const auto node = [&](Rank seat) { return nodes_.empty() ? 0 : nodes_[index(seat)]; };
  for (auto first = awake_.begin(), last = first; first != awake_.end(); first = last) {
    order.clear();
    for (; last != awake_.end() && node(*last) == node(*first); ++last) order.push_back(&seats_[index(*last)]);
    std::ranges::sort(order, {}, &Seat::work);
    const int lanes = std::min(heads_, ranks_per_node_);
    double begun = 0, now = 0;
    auto computing = static_cast<double>(order.size()) * lanes;
    for (Seat* seat : order) {
      now += (seat->work - begun) * std::max(1.0, computing / workers_);
      begun = seat->work;
      seat->work = now;
      computing -= lanes;
    }
  }
}

// Fewer ports than ranks: what the ranks of a node send and receive together.
void Clock::share_ports() {
  std::ranges::fill(out_, 0);
  std::ranges::fill(in_, 0);
  const double lanes = std::min(heads_, ranks_per_node_);
  for (const Rank i : awake_) {
    out_[index(nodes_[index(i)])] += now_[index(i)].far.out * lanes / ports_;
    in_[index(nodes_[index(i)])] += now_[index(i)].far.in * lanes / ports_;
  }
  for (const Rank i : awake_) {
    Traffic& load = now_[index(i)].far;
    if (load.out > 0) load.out = std::max(load.out, out_[index(nodes_[index(i)])]);
    if (load.in > 0) load.in = std::max(load.in, in_[index(nodes_[index(i)])]);
  }
}

void Clock::merge(Index most_rows, bool across) {
  double last = 0;
  for (const Seat& seat : seats_) last = std::max(last, seat.done);
  const LinkPrice& link = across ? far_ : near_;
  const double bytes = static_cast<double>(most_rows) * sum_bytes_;
  const double crowd = across ? std::max(1.0, static_cast<double>(ranks_here_) / ports_) : 1;
  // what arrived is added, what was sent is cleared
  const double takes = link.latency(bytes) + bytes * crowd / link.bytes_per_second + 4 * bytes * seconds_per_byte_;
  for (Seat& seat : seats_) seat.ready = seat.done = last + takes;
  if (recorder_ != nullptr) recorder_->merge(last, last + takes, sum_bytes_);
}

PassTime Clock::end() {
  step();
  step();
  PassTime time;
  for (const Seat& seat : seats_) {
    time.seconds = std::max(time.seconds, seat.ready);
    time.compute_seconds = std::max(time.compute_seconds, seat.compute);
  }
  if (recorder_ != nullptr) recorder_->end(time.seconds);
  return time;
}

}  // namespace annulus

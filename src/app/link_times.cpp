#include "app/link_times.hpp"

#include <algorithm>
#include <chrono>

#include "annulus/transport/collectives.hpp"
#include "app/common_start.hpp"

namespace annulus::app {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begins) { return std::chrono::duration<double>(Clock::now() - begins).count(); }

// Small messages are over before a clock has ticked often enough: several per measurement.
Index burst_of(Index bytes) { return std::clamp<Index>((Index{1} << 20) / std::max<Index>(bytes, 1), 1, 64); }

// What is sent lies where a ring keeps its blocks.
Array outgoing(Transport& t, Index bytes) {
  static CpuDevice cpu;
  return Array::zeros(lending(t, cpu), DType::f64, ceil_div(bytes, 8), 1, 1);
}

}  // namespace

std::vector<double> shift_seconds(Transport& t, Index bytes, int stride, Index repetitions) {
  const Array block = outgoing(t, bytes);
  const auto out = block.rows().span(0, block.rows().tokens);
  std::vector<std::byte> in(out.size());
  const Rank to = (t.rank() + stride) % t.ranks(), from = (t.rank() - stride % t.ranks() + t.ranks()) % t.ranks();
  const std::vector<Send> sends{{to, out}};
  const std::vector<Recv> recvs{{from, in}};
  const Index burst = burst_of(bytes);
  std::vector<double> seconds;
  t.start(sends, recvs).wait();  // connections are made at first use
  CommonStart start(t);
  for (Index i = 0; i < repetitions; ++i) {
    start.wait();
    const auto begins = Clock::now();
    for (Index n = 0; n < burst; ++n) t.start(sends, recvs).wait();
    seconds.push_back(since(begins) / static_cast<double>(burst));
  }
  all_max(t, seconds);
  return seconds;
}

std::vector<double> pair_seconds(Transport& t, Rank a, Rank b, Index bytes, bool both_ways, Index repetitions) {
  const Array block = outgoing(t, bytes);
  const auto out = block.rows().span(0, block.rows().tokens);
  std::vector<std::byte> in(out.size());
  const Index burst = burst_of(bytes);
  const bool takes_part = t.rank() == a || t.rank() == b;
  const Rank peer = t.rank() == a ? b : a;
  const auto turn = [&](bool sends_now, bool receives_now) {
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    if (takes_part && sends_now) sends.push_back({peer, out});
    if (takes_part && receives_now) recvs.push_back({peer, in});
    t.start(sends, recvs).wait();
  };
  const auto trip = [&] {
    if (both_ways) return turn(true, true);
    turn(t.rank() == a, t.rank() == b);
    turn(t.rank() == b, t.rank() == a);
  };
  std::vector<double> seconds;
  trip();
  CommonStart start(t);
  for (Index i = 0; i < repetitions; ++i) {
    start.wait();
    const auto begins = Clock::now();
    for (Index n = 0; n < burst; ++n) trip();
    seconds.push_back(takes_part ? since(begins) / static_cast<double>(burst) / (both_ways ? 1 : 2) : 0);
  }
  all_max(t, seconds);
  return seconds;
}

std::vector<double> busy_pair_seconds(Transport& t, Rank a, Rank b, Index bytes, double busy_seconds,
                                      Index repetitions) {
  constexpr double batch_seconds = 0.04;
  std::vector<std::byte> out(static_cast<std::size_t>(bytes), std::byte{1}), in(out.size());
  const bool takes_part = t.rank() == a || t.rank() == b;
  const Rank peer = t.rank() == a ? b : a;
  std::vector<Send> sends;
  std::vector<Recv> recvs;
  if (takes_part) sends.push_back({peer, out}), recvs.push_back({peer, in});
  std::vector<double> seconds;
  CommonStart start(t);
  for (Index i = 0; i < repetitions; ++i) {
    start.wait();
    const auto begins = Clock::now();
    Pending moving = t.start(sends, recvs);
    for (double polled = 0; takes_part && since(begins) < busy_seconds;)  // turns of a core, no memory
      if (since(begins) - polled >= batch_seconds) moving.poll(), polled = since(begins);
    moving.wait();
    seconds.push_back(takes_part ? since(begins) : 0);
  }
  all_max(t, seconds);
  return seconds;
}

}  // namespace annulus::app

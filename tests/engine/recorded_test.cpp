#include "annulus/engine/recorded.hpp"

#include <gmock/gmock.h>

#include <array>
#include <map>
#include <mutex>
#include <tuple>

#include "support/ranks.hpp"

namespace annulus {
namespace {

using Key = std::tuple<Rank, Rank, Index, int, Index>;  // from, to, batch, place, bytes

TEST(RecordedTransport, EveryMessageIsSeenOnceAtEachEnd) {
  std::map<Key, int> sent, received;
  std::mutex mutex;
  on_ranks(4, [&](Transport& inner) {
    Timeline timeline;
    timeline.keep(true);
    RecordedTransport transport(inner, timeline);
    const Rank next = (inner.rank() + 1) % 4, before = (inner.rank() + 3) % 4;
    std::array<std::byte, 64> out{}, in{};
    for (std::size_t bytes : {8, 0, 3}) {  // two messages to the same peer, one empty, one to itself
      const std::span o(out), i(in);
      const std::array<Send, 3> sends{
          Send{next, o.first(bytes)}, {next, o.first(2 * bytes)}, {inner.rank(), o.first(5)}};
      const std::array<Recv, 3> recvs{
          Recv{before, i.subspan(0, bytes)}, {before, i.subspan(10, 2 * bytes)}, {inner.rank(), i.subspan(50, 5)}};
      transport.start(sends, recvs).wait();
    }
    const std::lock_guard lock(mutex);
    for (const Message& m : timeline.messages()) {
      EXPECT_LE(m.begin_seconds, m.end_seconds);
      const Rank from = m.sent ? inner.rank() : m.peer, to = m.sent ? m.peer : inner.rank();
      ++(m.sent ? sent : received)[{from, to, m.batch, m.place, m.bytes}];
    }
    EXPECT_EQ(timeline.events().size(), 3U) << "one wait per batch, and neighbours do not merge";
  });
  EXPECT_EQ(sent.size(), 4U * (3 + 1 + 3));
  EXPECT_EQ(sent, received);
}

TEST(ClockOffset, BringsTimelinesOfOneClockTogether) {
  std::mutex mutex;
  std::vector<double> begins(3);
  const Timeline::Clock::time_point start = Timeline::Clock::now();
  on_ranks(3, [&](Transport& transport) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30 * transport.rank()));
    const double made = std::chrono::duration<double>(Timeline::Clock::now() - start).count();
    const Timeline timeline;
    const double offset = clock_offset(transport, timeline);
    const std::lock_guard lock(mutex);
    begins[static_cast<std::size_t>(transport.rank())] = made - offset;  // when rank 0's timeline began
  });
  // half of the fastest of 16 round trips between threads; 10 ms would be a trip through a sleeping scheduler
  EXPECT_NEAR(begins[1], begins[0], 0.01);
  EXPECT_NEAR(begins[2], begins[0], 0.01);
}

}  // namespace
}  // namespace annulus

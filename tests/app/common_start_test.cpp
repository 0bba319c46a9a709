#include "app/common_start.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "support/ranks.hpp"

namespace annulus::app {
namespace {

// However late one of them comes and however long messages take, and again and again.
TEST(CommonStart, NobodyBeginsBeforeAllHaveCome) {
  using Clock = std::chrono::steady_clock;
  constexpr int ranks = 3, times = 4;
  Clock::time_point came[times][ranks], began[times][ranks];
  on_ranks(
      ranks,
      [&](Transport& transport) {
        CommonStart start(transport);
        for (int n = 0; n < times; ++n) {
          if (transport.rank() == n % ranks) std::this_thread::sleep_for(std::chrono::milliseconds(5));
          came[n][transport.rank()] = Clock::now();
          start.wait();
          began[n][transport.rank()] = Clock::now();
        }
      },
      20, {.most_delay_seconds = 0.002});
  for (int n = 0; n < times; ++n) EXPECT_GE(*std::ranges::min_element(began[n]), *std::ranges::max_element(came[n]));
}

}  // namespace
}  // namespace annulus::app

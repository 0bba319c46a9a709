#include "annulus/plan/prediction.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "annulus/base/error.hpp"
#include "support/schedules.hpp"

// What the simulation says that ranks do: that it adds up to the time, the work and the bytes which it says altogether.

namespace annulus {
namespace {

// A schedule and prices of any kind, every rank recorded.
struct Case {
  explicit Case(unsigned seed) : random{std::mt19937(seed)}, job(random_schedule(random, false)), prices(any_prices()) {
    prediction.ranks.resize(static_cast<std::size_t>(job.grid.ranks()));
    estimate = annulus::estimate(job, prices, &prediction);
    said = sentence("seed ", seed, ": ", strategy_of(job.grid), " ", to_text(job.grid), " ", job.queries.name(), " ",
                    job.mask.name(), " ", job.mask.queries());
  }
  Prices any_prices() {
    const LinkPrice link{random.of({0.0, 2.0}), random.of({0.5, 5.0, endless}), random.of({0.0, 0.4, 1.0}),
                         random.below(2) == 0};
    Prices p = plain(link, random.below(2) == 0);
    p.kv_heads = 1 + random.below(3);
    p.query_heads = p.kv_heads * (1 + random.below(2));
    p.ranks_per_node = 1 + random.below(6);
    p.far = {random.of({0.0, 9.0}), random.of({0.2, 5.0}), random.of({0.0, 1.0}), false};
    p.network_ports = 1 + random.below(3);
    p.workers_per_node = 1 + random.below(6);
    p.memory_bytes_per_second = random.of({20.0, endless});
    p.seconds_per_pass = random.of({0.0, 7.0});
    if (random.below(3) == 0)
      for (Rank rank = 0; rank < job.grid.ranks(); ++rank) p.weights.push_back(1 + random.below(4));
    return p;
  }

  Random random;
  Schedule job;
  Prices prices;
  Prediction prediction;
  Estimate estimate;
  std::string said;
};

constexpr unsigned cases = 400;

TEST(Prediction, FillsEveryRanksTimeWithoutAGap) {
  for (unsigned seed = 0; seed < cases; ++seed) {
    const Case c(seed);
    const double seconds = c.estimate.seconds(), close = 1e-9 * (1 + seconds);
    for (const Prediction::OfRank& rank : c.prediction.ranks) {
      double now = 0;
      for (const Event& event : rank.events) {
        ASSERT_NEAR(event.begin_seconds, now, close) << c.said;
        ASSERT_GT(event.end_seconds, event.begin_seconds) << c.said;
        now = event.end_seconds;
      }
      ASSERT_NEAR(now, seconds, close) << c.said;
    }
  }
}

TEST(Prediction, ComputesAsLongAsTheEstimateSays) {
  for (unsigned seed = 0; seed < cases; ++seed) {
    const Case c(seed);
    double forward = 0, backward = 0;
    for (const Prediction::OfRank& rank : c.prediction.ranks) {
      double mine = 0, mine_backward = 0;
      for (const Event& event : rank.events)
        if (event.what == "compute")
          (event.begin_seconds < c.estimate.forward.seconds * (1 - 1e-12) ? mine : mine_backward) +=
              event.end_seconds - event.begin_seconds;
      forward = std::max(forward, mine);
      backward = std::max(backward, mine_backward);
    }
    const double close = 1e-9 * (1 + c.estimate.seconds());
    ASSERT_NEAR(forward, c.estimate.forward.compute_seconds, close) << c.said;
    ASSERT_NEAR(backward, c.estimate.backward.compute_seconds, close) << c.said;
  }
}

TEST(Prediction, HasAReceiveForEverySendAndAllTheBytes) {
  for (unsigned seed = 0; seed < cases; ++seed) {
    const Case c(seed);
    using Key = std::tuple<Rank, Rank, Index, int>;  // from, to, batch, place
    std::map<Key, Message> sends, receives;
    Index bytes = 0, most = 0;
    for (std::size_t rank = 0; rank < c.prediction.ranks.size(); ++rank) {
      Index mine = 0;
      for (const Message& m : c.prediction.ranks[rank].messages) {
        const auto me = static_cast<Rank>(rank);
        ASSERT_LE(0, m.begin_seconds) << c.said;
        ASSERT_LE(m.begin_seconds, m.end_seconds) << c.said;
        ASSERT_LE(m.end_seconds, c.estimate.seconds() * (1 + 1e-9)) << c.said;
        ASSERT_GT(m.bytes, 0) << c.said;
        const Key key{m.sent ? me : m.peer, m.sent ? m.peer : me, m.batch, m.place};
        ASSERT_TRUE((m.sent ? sends : receives).emplace(key, m).second) << c.said;
        mine += m.sent ? 0 : m.bytes;
      }
      bytes += mine;
      most = std::max(most, mine);
    }
    ASSERT_EQ(sends.size(), receives.size()) << c.said;
    for (const auto& [key, sent] : sends) {
      ASSERT_TRUE(receives.contains(key)) << c.said;
      ASSERT_EQ(receives.at(key).bytes, sent.bytes) << c.said;
      ASSERT_LE(sent.begin_seconds, receives.at(key).end_seconds * (1 + 1e-12)) << c.said;
    }
    ASSERT_EQ(bytes, c.estimate.total_bytes + c.estimate.exchange_total) << c.said;
    if (c.job.grid.heads == 1 || c.job.grid.seats() == 1) {
      ASSERT_EQ(most, c.estimate.block_bytes_received + c.estimate.exchange_bytes) << c.said;
    }
  }
}

TEST(Prediction, OfSomeRanksIsThatOfAllAndChangesNoPrice) {
  for (unsigned seed = 0; seed < cases; ++seed) {
    Case c(seed);
    const Estimate alone = estimate(c.job, c.prices);
    ASSERT_EQ(alone.seconds(), c.estimate.seconds()) << c.said;
    ASSERT_EQ(alone.compute_seconds(), c.estimate.compute_seconds()) << c.said;
    Prediction some;
    some.ranks.resize(1 + static_cast<std::size_t>(c.random.below(c.job.grid.ranks())));
    estimate(c.job, c.prices, &some);
    for (std::size_t rank = 0; rank < some.ranks.size(); ++rank) {
      const auto &mine = some.ranks[rank], &all = c.prediction.ranks[rank];
      const auto same_event = [](const Event& a, const Event& b) {
        return a.what == b.what && a.step == b.step && a.begin_seconds == b.begin_seconds &&
               a.end_seconds == b.end_seconds;
      };
      const auto key = [](const Message& m) {
        return std::tuple(m.batch, m.sent, m.peer, m.place, m.bytes, m.begin_seconds, m.end_seconds);
      };
      ASSERT_TRUE(std::ranges::equal(mine.events, all.events, same_event)) << c.said;
      std::vector<decltype(key({}))> a, b;
      for (const Message& m : mine.messages) a.push_back(key(m));
      for (const Message& m : all.messages) b.push_back(key(m));
      std::ranges::sort(a);
      std::ranges::sort(b);
      ASSERT_EQ(a, b) << c.said;
    }
  }
}

TEST(Prediction, OfTwoRanksIsWhatAHandDraws) {
  // two steps of 16 pairs; the block of 32 bytes takes 1 + 32 / 4 = 9 s, 8 of them beside computing
  const Schedule job = make_schedule({1, 2, 1}, "contiguous", Mask::parse("full", {8, 8}));
  Prediction prediction;
  prediction.ranks.resize(2);
  estimate(job, plain({1, 4, 0.5, false}), &prediction);
  for (Rank rank : {0, 1}) {
    const auto& [events, messages] = prediction.ranks[static_cast<std::size_t>(rank)];
    ASSERT_EQ(events.size(), 3U);
    EXPECT_EQ(events[0].what, "compute");
    EXPECT_EQ(events[0].step, rank) << "whose block it is";
    EXPECT_EQ(events[0].end_seconds, 16);
    EXPECT_EQ(events[1].what, "wait");
    EXPECT_EQ(events[1].end_seconds, 17);
    EXPECT_EQ(events[2].step, 1 - rank);
    EXPECT_EQ(events[2].end_seconds, 33);
    ASSERT_EQ(messages.size(), 2U);
    for (const Message& m : messages) {
      EXPECT_EQ(m.peer, 1 - rank);
      EXPECT_EQ(m.bytes, 32);
      EXPECT_EQ(m.begin_seconds, 0);
      EXPECT_EQ(m.end_seconds, 17);
    }
    EXPECT_NE(messages[0].sent, messages[1].sent);
  }
}

TEST(Prediction, IsRefusedWhereStepsAreSampled) {
  const Schedule job = make_schedule({1, 8, 1}, "zigzag", Mask::parse("causal", {80, 80}));
  Prices prices = plain({1, 4, 1, false});
  Prediction prediction;
  prediction.ranks.resize(1);
  EXPECT_FALSE(steps_are_sampled(job, prices));
  prices.most_looks = 63;
  EXPECT_TRUE(steps_are_sampled(job, prices));
  EXPECT_THROW(estimate(job, prices, &prediction), Error);
}

}  // namespace
}  // namespace annulus

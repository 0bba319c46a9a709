#include <gtest/gtest.h>

#include <algorithm>

#include "annulus/geometry/meet.hpp"
#include "annulus/plan/cost.hpp"
#include "support/schedules.hpp"

// The simulated time, against small plans priced by hand, against the plans themselves, and against laws.

namespace annulus {
namespace {

Schedule ring(int ranks, const char* mask, Index tokens, const char* partition = "contiguous") {
  return make_schedule({1, ranks, 1}, partition, Mask::parse(mask, {tokens, tokens}));
}

TEST(Time, OfTwoRanksIsWhatAHandComputes) {
  const Schedule job = ring(2, "full", 8);  // two steps of 16 pairs; a block of 32 bytes takes 1 + 32 / 4 = 9 s
  EXPECT_DOUBLE_EQ(estimate(job, plain({1, 4, 0, true})).seconds(), 16 + 9 + 16);
  EXPECT_DOUBLE_EQ(estimate(job, plain({1, 4, 0, false})).seconds(), 16 + 9 + 16);
  EXPECT_DOUBLE_EQ(estimate(job, plain({1, 4, 1, false})).seconds(), 16 + 16);
  EXPECT_DOUBLE_EQ(estimate(job, plain({1, 4, 0.5, false})).seconds(), 16 + 1 + 16);  // 8 of 9 s beside computing
  EXPECT_DOUBLE_EQ(estimate(job, plain({1, 1, 1, false})).seconds(), 33 + 16);        // a link too slow to hide
  const Estimate e = estimate(job, plain({1, 4, 0, true}));
  EXPECT_DOUBLE_EQ(e.compute_seconds(), 32);
  EXPECT_DOUBLE_EQ(e.exposed(), 9.0 / 41);
}

TEST(Time, OfFewQueriesIsAtLeastWhatReadingTheKeysTakes) {
  Prices p = plain({0, endless, 1, false});
  p.key_bytes_per_second = 2;  // 4 s for the 8 bytes of a key; a pair takes 1 s
  const auto seconds = [&](const Grid& grid, Index queries, Index keys) {
    return estimate(make_schedule(grid, "contiguous", Mask::parse("full", {queries, keys})), p).seconds();
  };
  EXPECT_DOUBLE_EQ(seconds({1, 1, 1}, 1, 100), 400);
  EXPECT_DOUBLE_EQ(seconds({1, 1, 1}, 3, 100), 400);
  EXPECT_DOUBLE_EQ(seconds({1, 1, 1}, 5, 100), 500);
  EXPECT_DOUBLE_EQ(seconds({1, 2, 1, Travel::tree}, 1, 100), 200);  // each reads its half of the keys ...
  EXPECT_DOUBLE_EQ(seconds({1, 2, 1, Travel::tree}, 2, 100), 200);  // ... once for the queries of both
  EXPECT_DOUBLE_EQ(seconds({1, 2, 1, Travel::queries}, 1, 100), 200);
}

TEST(Time, OfGradientsIncludesTheirWayHome) {
  const Schedule job = ring(2, "full", 8);  // after the last step 32 bytes of gradients go home
  EXPECT_DOUBLE_EQ(estimate(job, plain({1, 4, 1, false}, true)).backward.seconds, 16 + 16 + 9);
  EXPECT_DOUBLE_EQ(estimate(job, plain({1, 4, 0, true}, true)).backward.seconds, 16 + 9 + 16 + 9);
}

TEST(Time, OfThreeRanksWaitsForTheSlowest) {
  // rows 2 + 2 + 2, causal:  seat 0: 3 pairs;  seat 1: 3, then 4 of block 0;  seat 2: 3, then 4 of block 1, then 4 of block 0
  const Schedule job = ring(3, "causal", 6);
  EXPECT_DOUBLE_EQ(estimate(job, plain({0.5, 16, 1, false})).seconds(), 3 + 4 + 4);
  EXPECT_DOUBLE_EQ(estimate(job, plain({0.5, 16, 0, false})).seconds(), 3 + 1.5 + 4 + 1.5 + 4);
}

TEST(Time, OfRanksThatShareCoresIsThatOfTheirWork) {
  Prices p = plain({0, endless, 1, false});
  p.workers_per_node = 1;
  EXPECT_DOUBLE_EQ(estimate(ring(2, "full", 8), p).seconds(), 64);
  // one step: seat 0 has 10 pairs, seat 1 has 26; while both compute each takes twice as long
  const Schedule job = make_schedule({1, 2, 1, Travel::gather}, "contiguous", Mask::parse("causal", {8, 8}));
  EXPECT_DOUBLE_EQ(estimate(job, p).seconds(), 20 + 16);
}

TEST(Time, OfSeatsIsTheirWorkOverTheSpeedOfTheirSlowestRank) {
  Prices p = plain({0, endless, 1, false});
  p.weights = {1, 3};  // half and one and a half times the mean speed; two steps of 16 pairs each
  EXPECT_DOUBLE_EQ(estimate(ring(2, "full", 8), p).seconds(), 2 * 16 / 0.5);
  EXPECT_DOUBLE_EQ(estimate(ring(2, "full", 8), p).imbalance(2), 2);
  EXPECT_DOUBLE_EQ(estimate(ring(2, "full", 8), p).imbalance_in_all(2), 2);
  const Mask mask = Mask::parse("full", {8, 8});
  p.query_heads = p.kv_heads = 2;
  const Estimate shared = estimate(make_schedule({2, 1, 1}, "balanced", mask, p.weights), p);  // one head for each rank
  EXPECT_DOUBLE_EQ(shared.seconds(), 64 / 0.5);
  EXPECT_DOUBLE_EQ(shared.imbalance(1), 2);
}

TEST(Time, OfAWeightedPartitionIsAboutTheSameOnAllRanks) {
  for (const char* terms : {"full", "causal", "causal+window:500,0"})
    for (const auto& weights : {std::vector<double>{1, 3}, {1, 1, 1, 1, 2, 2}, {5, 2, 2}}) {
      const Mask mask = Mask::parse(terms, {4096, 4096});
      const auto ranks = static_cast<int>(weights.size());
      Prices p = plain({0, endless, 1, false});
      p.weights = weights;
      // one step, so that nobody waits for another but at the end
      const Schedule job = make_schedule({1, ranks, 1, Travel::gather}, "balanced", mask, weights);
      const double ideal = static_cast<double>(mask.pairs()) / ranks;
      EXPECT_LE(estimate(job, p).seconds(), 1.1 * ideal) << terms << " " << ranks;
      EXPECT_GE(estimate(job, p).seconds(), 0.999 * ideal) << terms << " " << ranks;
      const Schedule even = make_schedule({1, ranks, 1, Travel::gather}, "balanced", mask);
      EXPECT_GE(estimate(even, p).seconds(), 1.3 * ideal) << terms << " " << ranks;
    }
}

TEST(Time, OfAPortThatANodeSharesIsThatOfAllItsRanks) {
  Prices p = plain(
      {0, 4, 1, false});  // two nodes of two; every block of 16 rows takes 32 s, and computing nothing to speak of
  p.forward = {{{1, 1e12}}, {}};
  p.ranks_per_node = 2;
  p.near.bytes_per_second = endless;
  const Schedule jump = make_schedule({1, 2, 2}, "contiguous", Mask::parse("full", {64, 64}));
  EXPECT_NEAR(estimate(jump, p).seconds(), 32, 1e-6);  // all four cross at once, each through its own port
  p.network_ports = 1;
  EXPECT_NEAR(estimate(jump, p).seconds(), 64, 1e-6);
  EXPECT_NEAR(estimate(ring(4, "full", 64), p).seconds(), 3 * 32, 1e-6);  // one of two crosses
}

TEST(Time, OfATileFollowsTheRatesByItsSize) {
  Prices p = plain({0, endless, 1, false});
  p.forward = {{{4, 4.0}, {64, 16.0}}, {{4, 2.0}}};
  const auto alone = [&](const char* mask, Index tokens) { return estimate(ring(1, mask, tokens), p).seconds(); };
  EXPECT_DOUBLE_EQ(alone("full", 4), 16);
  EXPECT_DOUBLE_EQ(alone("full", 2), 4);  // smaller than all that was measured
  EXPECT_DOUBLE_EQ(alone("full", 64), 64 * 64 / 4.0);
  EXPECT_DOUBLE_EQ(alone("full", 16), 16 * 16 / 2.5);  // half-way on the logarithm: 10 operations per second
  EXPECT_DOUBLE_EQ(alone("causal", 16), 2 * 16 * 17 / 2);
}

TEST(Time, OfPassesOverMemoryAndOfAPassIsAdded) {
  Prices p = plain({0, endless, 1, false});
  p.memory_bytes_per_second = 4;
  p.seconds_per_pass = 100;
  // out, top and sum of 8 rows, 4 bytes each: cleared, and read and written once more
  EXPECT_DOUBLE_EQ(estimate(ring(1, "full", 8), p).seconds(), 64 + 3 * 8 * 3 + 100);
}

TEST(Time, OfSampledStepsIsCloseToThatOfAll) {
  for (const Grid& grid : {Grid{1, 480, 1}, Grid{1, 8, 60}, Grid{1, 8, 60, Travel::gather},
                           Grid{1, 480, 1, Travel::queries}, Grid{1, 480, 1, Travel::tree}})
    for (const char* mask : {"full", "causal"}) {
      const Schedule job = make_schedule(grid, "zigzag", Mask::parse(mask, {480 * 20 + 7, 480 * 20 + 7}));
      Prices p = plain({50, 5, 1, false}, true);
      p.ranks_per_node = 8;
      p.far.bytes_per_second = 1;
      const Estimate all = estimate(job, p);
      p.most_looks = 480 * 480 - 1;
      const Estimate some = estimate(job, p);
      EXPECT_GT(some.sampled_every, 5);
      EXPECT_EQ(some.pairs, all.pairs);
      const auto close = [&](double a, double b, const char* what) {
        EXPECT_NEAR(a, b, 0.1 * b) << what << ": " << strategy_of(grid) << " " << mask;
      };
      close(some.forward.seconds, all.forward.seconds, "forward");
      close(some.backward.seconds, all.backward.seconds, "backward");
      close(static_cast<double>(some.total_bytes), static_cast<double>(all.total_bytes), "bytes");
      close(static_cast<double>(some.node_bytes), static_cast<double>(all.node_bytes), "bytes between nodes");
    }
}

// Everything a plan says about its seat, step by step, with each message priced where it stands in the plan. together: the
// messages of a step are on their way at the same time, as between nodes.
double seconds_of_plans(const Schedule& job, const LinkPrice& link, bool together) {
  std::vector<Plan> plans;
  for (Rank seat = 0; seat < job.planner.seats(); ++seat) plans.push_back(job.plan_of(seat));
  const auto latency = [&](const Move& move) { return link.latency(8.0 * static_cast<double>(count(move.rows))); };
  std::vector<double> ready(plans.size());
  for (std::size_t s = 0; s < plans[0].steps.size(); ++s) {
    std::vector<double> in(plans.size()), out(plans.size()), next(plans.size()), longest(plans.size());
    for (std::size_t i = 0; i < plans.size(); ++i)
      for (const Move& move : plans[i].steps[s].arrive) {
        const double seconds = 8.0 * static_cast<double>(count(move.rows)) / link.bytes_per_second;
        in[i] += (together ? 0 : latency(move)) + seconds;
        out[static_cast<std::size_t>(move.seat)] += seconds;
        longest[i] = std::max(longest[i], latency(move));
      }
    for (std::size_t i = 0; i < plans.size(); ++i)
      next[i] = std::max(ready[i] + static_cast<double>(pairs(plans[i].steps[s].tiles)), ready[i]);
    for (std::size_t i = 0; i < plans.size(); ++i) {
      if (together) in[i] += longest[i];
      next[i] = std::max(next[i], ready[i] + std::max(in[i], out[i]));  // nobody's link is faster than its own messages
      for (const Move& move : plans[i].steps[s].arrive) {
        const auto from = static_cast<std::size_t>(move.seat);
        const double there = std::max(ready[i], ready[from]) + std::max({in[i], out[i], longest[i] + out[from]});
        next[i] = std::max(next[i], there);
        next[from] = std::max(next[from], there);
      }
    }
    ready = next;
  }
  return std::ranges::max(ready);
}

TEST(Time, IsThatOfThePlansThemselves) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    Random random{std::mt19937(seed)};
    const Schedule job = random_schedule(random, true);
    LinkPrice link{random.of({0.0, 3.0}), random.of({0.1, 5.0, endless}), 1, false};
    link.long_bytes = random.of({8.0, 40.0, endless});
    link.long_latency_seconds = 10;
    Prices prices = plain(link);
    const bool apart = random.below(2) == 0;  // every rank on a node of its own
    if (apart) prices.ranks_per_node = 1, prices.far = link, prices.near = {};
    const double expected = seconds_of_plans(job, link, apart);
    ASSERT_NEAR(estimate(job, prices).seconds(), expected, 1e-9 * (1 + expected))
        << "seed " << seed << ": " << to_text(job.grid) << " " << job.queries.name() << " " << job.mask.name() << " "
        << job.mask.queries();
  }
}

TEST(Time, OfManyStepsWithFewAtWorkIsThatOfThePlansThemselves) {
  for (const Grid& grid : {Grid{1, 100, 1}, Grid{1, 10, 10}})
    for (const char* partition : {"contiguous", "zigzag", "balanced"})
      for (const char* terms : {"causal+window:9,0+sink:2", "window:9,0", "window:12,4+global:0"}) {
        const Schedule job = make_schedule(grid, partition, Mask::parse(terms, {1009, 1009}));
        const LinkPrice link{3, 2, 1, false};
        const double expected = seconds_of_plans(job, link, false);
        EXPECT_NEAR(estimate(job, plain(link)).seconds(), expected, 1e-9 * expected)
            << to_text(grid) << partition << terms;
      }
}

TEST(Time, OfAWindowThatReachesFewSeatsIsNotSampled) {
  const Schedule job = make_schedule({1, 20000, 1}, "contiguous", Mask::parse("window:65,0", {400000, 400000}));
  const Estimate e = estimate(job, plain({0, endless, 1, false}));
  EXPECT_EQ(e.sampled_every, 1);
  EXPECT_EQ(e.steps, 5);
  EXPECT_DOUBLE_EQ(e.seconds(), 20 * 66);
}

TEST(Time, NeverGrowsWhenAPriceFalls) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    Random random{std::mt19937(seed)};
    const Schedule job = random_schedule(random, false);
    Prices p = plain({2, 5, random.of({0.0, 0.3, 1.0}), random.below(2) == 0}, true);
    p.query_heads = p.kv_heads = 2;
    p.ranks_per_node = 1 + random.below(4);
    p.network_ports = 1 + random.below(2);
    p.memory_bytes_per_second = 50;
    p.near.long_bytes = p.far.long_bytes = 100;
    p.near.long_latency_seconds = p.far.long_latency_seconds = 6;
    const Estimate before = estimate(job, p);
    const auto falls = [&](const char* what, auto change) {
      Prices cheaper = p;
      change(cheaper);
      const Estimate after = estimate(job, cheaper);
      ASSERT_LE(after.forward.seconds, before.forward.seconds * (1 + 1e-12)) << "seed " << seed << ": " << what;
      ASSERT_LE(after.backward.seconds, before.backward.seconds * (1 + 1e-12)) << "seed " << seed << ": " << what;
    };
    falls("bandwidth", [](Prices& c) { c.near.bytes_per_second *= 2, c.far.bytes_per_second *= 2; });
    falls("latency", [](Prices& c) { c.near.latency_seconds = c.far.latency_seconds = 1; });
    falls("announcements", [](Prices& c) { c.near.long_bytes = c.far.long_bytes = endless; });
    falls("hidden", [](Prices& c) { c.near.hidden = c.far.hidden = 1; });
    falls("rate", [](Prices& c) { c.forward = {{{1, 8.0}}, {}}, c.backward_rates = {{{1, 20.0}}, {}}; });
    falls("memory", [](Prices& c) { c.memory_bytes_per_second = endless; });
    falls("ports", [](Prices& c) { c.network_ports = 4; });
  }
}

TEST(Time, LiesBetweenTheLargerAndTheSumOfComputingAndExchange) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    Random random{std::mt19937(seed)};
    const Schedule job = random_schedule(random, false);
    const LinkPrice link{1, 5, random.of({0.0, 0.4, 1.0}), random.below(2) == 0};
    Prices mine = plain(link);
    if (random.below(2) == 0)
      for (int rank = 0; rank < job.grid.ranks(); ++rank) mine.weights.push_back(1 + random.below(4));
    const Estimate both = estimate(job, mine);
    Prices alone = plain({0, endless, 1, false});
    alone.weights = mine.weights;
    const Estimate computing = estimate(job, alone);
    Prices idle = plain({link.latency_seconds, link.bytes_per_second, 1, false});
    idle.forward = {{{1, 1e18}}, {}};
    const double exchange = estimate(job, idle).forward.seconds;
    ASSERT_GE(both.forward.seconds * (1 + 1e-9), std::max(computing.forward.seconds, exchange)) << "seed " << seed;
    // everybody computes, and then everybody exchanges, step after step
    Prices apart = plain({link.latency_seconds, link.bytes_per_second, 0, false});
    apart.weights = mine.weights;
    ASSERT_LE(both.forward.seconds, estimate(job, apart).forward.seconds * (1 + 1e-9)) << "seed " << seed;
    ASSERT_LE(least_seconds(job, mine), both.forward.seconds * (1 + 1e-9)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace annulus

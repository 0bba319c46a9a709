#include "annulus/plan/plan.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <random>
#include <set>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"
#include "annulus/plan/cost.hpp"
#include "support/plans.hpp"

namespace annulus {
namespace {

/// The rows that are held, in their order: owner and row.
std::vector<std::pair<Rank, Index>> held_rows(const Step& step) {
  std::vector<std::pair<Rank, Index>> rows;
  for (const Move& block : step.held)
    for (const Range& part : block.rows)
      for (Index row = part.begin; row < part.end; ++row) rows.emplace_back(block.seat, row);
  return rows;
}

std::vector<Range> rows_held_of(const Step& step, Rank owner) {
  for (const Move& block : step.held)
    if (block.seat == owner) return block.rows;
  return {};
}

/// A schedule and the plans of all seats.
struct Job : Schedule {
  explicit Job(Schedule schedule) : Schedule(std::move(schedule)), plans(plans_of(planner)) {}
  std::vector<Plan> plans;
};

std::vector<Range> rows_of(const std::optional<Move>& move) { return move ? move->rows : std::vector<Range>{}; }
std::vector<Range> rows_of(const std::vector<Move>& moves) {
  std::vector<Range> rows;
  for (const Move& move : moves) rows.insert(rows.end(), move.rows.begin(), move.rows.end());
  return rows;
}

// The rows `inner` lie within the rows `outer`.
bool inside(const std::vector<Range>& inner, const std::vector<Range>& outer) {
  return count(without(inner, outer)) == 0;
}

template <class Check>
void for_random_schedules(int trials, Check check) {
  std::mt19937_64 random(11);
  const auto up_to = [&](Index n) { return static_cast<Index>(random() % static_cast<std::uint64_t>(n + 1)); };
  const std::vector<Grid> grids{{1, 1, 1}, {1, 2, 1}, {1, 3, 1}, {1, 4, 1}, {1, 8, 1}, {1, 2, 2}, {1, 4, 2}, {1, 2, 4},
                                {2, 1, 1}, {2, 2, 1}, {2, 4, 1}, {4, 2, 1}, {8, 1, 1}, {2, 2, 2}, {1, 3, 3}, {1, 7, 1},
                                {1, 4, 1, Travel::gather}, {1, 3, 2, Travel::gather}, {2, 2, 2, Travel::gather},
                                {1, 5, 1, Travel::queries}, {1, 2, 4, Travel::queries}, {2, 3, 1, Travel::queries},
                                {1, 1, 1, Travel::tree}, {1, 4, 1, Travel::tree}, {1, 7, 1, Travel::tree}};
  for (int trial = 0; trial < trials; ++trial) {
    const Index n = up_to(70), keys = trial % 4 == 0 ? up_to(70) : n;
    Extent extent{n, keys, {}};
    if (n == keys) {
      extent.documents = {0};
      while (extent.documents.back() < n)
        extent.documents.push_back(std::min(n, extent.documents.back() + 1 + up_to(25)));
    }
    std::string terms = up_to(1) == 0 ? "causal" : "full";
    if (up_to(1) == 0) terms += "+window:" + std::to_string(up_to(12)) + "," + std::to_string(up_to(6));
    if (up_to(2) == 0) terms += "+sink:" + std::to_string(up_to(5));
    if (n == keys && n > 0 && up_to(1) == 0) terms += "+documents";
    if (n == keys && n > 0 && up_to(3) == 0) terms += "+global:" + std::to_string(up_to(n - 1));
    if (n == keys && n > 0 && up_to(3) == 0) terms += "+prefix:" + std::to_string(up_to(n));
    const Mask mask = Mask::parse(terms, extent);
    for (const Grid& grid : grids) {
      const char* partition =
          std::vector{"contiguous", "zigzag", "striped", "balanced"}[static_cast<std::size_t>(up_to(3))];
      SCOPED_TRACE(sentence(terms, " n ", n, " keys ", keys, " ", strategy_of(grid), " ", to_text(grid), " ", partition));
      check(Job(make_schedule(grid, partition, mask)));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Plan, EveryVisiblePairIsComputedExactlyOnce) {
  for_random_schedules(60, [](const Job& job) {
    const Partition queries = job.queries.joined(job.grid.heads), keys = job.keys.joined(job.grid.heads);
    std::map<std::pair<Index, Index>, int> met;
    for (const Plan& plan : job.plans)
      for (const Step& step : plan.steps)
        for (const Tile& tile : step.tiles)
          for (Index i = 0; i < tile.q.count(); ++i)
            for (Index j = tile.keys_of(i).begin; j < tile.keys_of(i).end; ++j) {
              const bool turned = queries_travel(job.grid.travel);
              const Index query = tile.q.begin + i, key = tile.k.begin + j;
              const auto [owner, row] = held_rows(step).at(static_cast<std::size_t>(turned ? query : key));
              ++met[turned ? std::pair(queries.position(owner, row), keys.position(plan.seat, key))
                           : std::pair(queries.position(plan.seat, query), keys.position(owner, row))];
            }
    Index visible = 0;
    for (Index q = 0; q < job.mask.queries(); ++q)
      for (Index k = 0; k < job.mask.keys(); ++k)
        if (job.mask.visible(q, k)) {
          ++visible;
          ASSERT_EQ((met[{q, k}]), 1) << q << ", " << k;
        }
    ASSERT_EQ(static_cast<Index>(met.size()), visible);
  });
}

TEST(Plan, EveryMoveIsSentAndReceivedInTheSameStep) {
  for_random_schedules(150, [](const Job& job) {
    for (std::size_t s = 0; s < job.plans[0].steps.size(); ++s) {
      std::map<std::pair<Rank, Rank>, std::vector<Range>> sent, received, returned, came_home;
      for (const Plan& plan : job.plans) {
        ASSERT_EQ(plan.steps.size(), job.plans[0].steps.size());
        const Step& step = plan.steps[s];
        if (step.forward) sent[{plan.seat, step.forward->seat}] = step.forward->rows;
        for (const Move& move : step.lend) sent[{plan.seat, move.seat}] = move.rows;
        for (const Move& move : step.arrive) received[{move.seat, plan.seat}] = move.rows;
        for (const Move& move : step.give_back) returned[{plan.seat, move.seat}] = move.rows;
        for (const Move& move : step.homecoming) came_home[{move.seat, plan.seat}] = move.rows;
        for (const Move& move : step.arrive) {
          const Step& sender = job.plans[static_cast<std::size_t>(move.seat)].steps[s];
          ASSERT_EQ(step.arrives_used, sender.forward.has_value() && sender.forward->seat == plan.seat);
        }
      }
      ASSERT_EQ(sent, received);
      ASSERT_EQ(returned, came_home);
    }
  });
}

TEST(Plan, NobodyReceivesABlockItDoesNotUseNext) {
  for_random_schedules(150, [](const Job& job) {
    for (const Plan& plan : job.plans)
      for (std::size_t s = 0; s + 1 < plan.steps.size() || s == 0; ++s) {
        if (plan.steps[s].arrive.empty()) {
          if (s + 1 < plan.steps.size() && plan.steps[s + 1].held != plan.steps[s].held) {
            ASSERT_TRUE(plan.steps[s + 1].held.empty());
          }
          if (s + 1 >= plan.steps.size()) break;
          continue;
        }
        ASSERT_LT(s + 1, plan.steps.size());
        const Step& next = plan.steps[s + 1];
        if (job.grid.travel != Travel::tree) {
          ASSERT_FALSE(next.tiles.empty()) << "an idle visit";
        }
        ASSERT_EQ(plan.steps[s].arrive.size(), next.held.size());
        for (std::size_t i = 0; i < next.held.size(); ++i) {
          ASSERT_EQ(plan.steps[s].arrive[i].rows, next.held[i].rows);
          ASSERT_FALSE(next.held[i].rows.empty());
        }
      }
    for (std::size_t s = 1; s < job.plans[0].steps.size() && job.grid.travel != Travel::tree; ++s)
      ASSERT_TRUE(std::ranges::any_of(job.plans, [&](const Plan& p) { return !p.steps[s].tiles.empty(); }))
          << "an idle step";
  });
}

TEST(Plan, AMoveCarriesExactlyTheRowsThatItsReceiverUses) {
  for_random_schedules(150, [](const Job& job) {
    if (job.grid.travel == Travel::tree) return;  // all queries come to all seats
    for (const Plan& plan : job.plans)
      for (std::size_t s = 0; s + 1 < plan.steps.size(); ++s) {
        if (plan.steps[s].arrive.empty()) continue;
        const Step& use = plan.steps[s + 1];
        std::set<Index> used;
        for (const Tile& tile : use.tiles) {
          const Range rows = queries_travel(job.grid.travel) ? tile.q : tile.k;
          for (Index row = rows.begin; row < rows.end; ++row) used.insert(row);
        }
        ASSERT_EQ(count(plan.steps[s].arrive), static_cast<Index>(used.size()));
        ASSERT_EQ(*used.begin(), 0);
        ASSERT_EQ(*used.rbegin(), static_cast<Index>(used.size()) - 1);
      }
  });
}

TEST(Plan, EveryGradientRowComesHomeOncePerChain) {
  for_random_schedules(150, [](const Job& job) {
    if (job.grid.travel == Travel::tree) return;  // nothing follows: see EveryPartialResultIsMergedIntoItsOwner
    for (const Plan& owner : job.plans) {
      Index lent = 0, home = 0;
      for (const Step& step : owner.steps) {
        lent += count(rows_of(step.lend));
        home += count(rows_of(step.homecoming));
        ASSERT_TRUE(inside(rows_of(step.homecoming), {{0, owner.own_rows}}));
      }
      ASSERT_EQ(lent, home);
    }
    for (const Plan& plan : job.plans)
      for (const Step& step : plan.steps) {
        for (const Move& move : step.give_back) ASSERT_TRUE(inside(move.rows, rows_held_of(step, move.seat)));
        ASSERT_TRUE(inside(rows_of(step.forward), rows_held_of(step, step.origin())));
        if (!step.give_back.empty() && step.forward) {
          ASSERT_EQ(count(rows_of(step.give_back)) + count(rows_of(step.forward)), count(step.held));
        }
      }
  });
}

TEST(Plan, EveryPartialResultIsMergedIntoItsOwner) {
  for (int seats = 1; seats <= 17; ++seats) {
    const Mask mask = Mask::parse("causal", {31, 50});
    const Job job(make_schedule({1, seats, 1, Travel::tree}, "zigzag", mask));
    // known[seat][query]: the seats whose keys are in it
    std::vector<std::vector<std::multiset<Rank>>> known(job.plans.size(), std::vector<std::multiset<Rank>>(31));
    for (const Plan& plan : job.plans)
      for (auto& query : known[static_cast<std::size_t>(plan.seat)]) query = {plan.seat};
    for (std::size_t m = 0; m < job.plans[0].merges.size(); ++m) {
      auto after = known;
      for (const Plan& plan : job.plans) {
        const Merge& round = plan.merges.at(m);
        if (round.peer == nobody) continue;
        const Merge& other = job.plans[static_cast<std::size_t>(round.peer)].merges.at(m);
        ASSERT_EQ(other.peer, plan.seat);
        ASSERT_EQ(round.send, other.receive);
        for (const Range& rows : round.send)
          for (auto q = static_cast<std::size_t>(rows.begin); q < static_cast<std::size_t>(rows.end); ++q) {
            after[static_cast<std::size_t>(plan.seat)][q].clear();
            after[static_cast<std::size_t>(round.peer)][q].merge(known[static_cast<std::size_t>(plan.seat)][q]);
          }
      }
      known = after;
    }
    std::multiset<Rank> everybody;
    for (Rank seat = 0; seat < seats; ++seat) everybody.insert(seat);
    std::size_t query = 0;
    for (const Plan& plan : job.plans)
      for (Index row = 0; row < plan.query_rows; ++row, ++query)
        ASSERT_EQ(known[static_cast<std::size_t>(plan.seat)][query], everybody) << seats << " seats";
    ASSERT_LE(job.plans[0].merges.size(), std::bit_width(static_cast<unsigned>(seats)) + 1);
  }
}

TEST(Plan, TheEstimateCountsWhatThePlansSay) {
  for_random_schedules(60, [](const Job& job) {
    const Estimate e = estimate(job, {});
    ASSERT_EQ(e.steps, static_cast<Index>(job.plans[0].steps.size()));
    Index buffer = 0;
    for (std::size_t s = 0; s < job.plans[0].steps.size(); ++s) {
      StepSum sum;
      for (const Plan& plan : job.plans) {
        const Index work = pairs(plan.steps[s].tiles);
        Index rows = 0;
        for (const Move& move : plan.steps[s].arrive) rows += move.seat == plan.seat ? 0 : count(move.rows);
        sum.pairs += work;
        sum.most_pairs = std::max(sum.most_pairs, work);
        sum.rows += rows;
        sum.most_rows = std::max(sum.most_rows, rows);
        buffer = std::max(buffer, rows);
      }
      ASSERT_EQ(e.by_step[s].pairs, sum.pairs);
      ASSERT_EQ(e.by_step[s].most_pairs, sum.most_pairs);
      ASSERT_EQ(e.by_step[s].rows, sum.rows);
      ASSERT_EQ(e.by_step[s].most_rows, sum.most_rows);
    }
    ASSERT_EQ(e.pairs, job.mask.pairs());
    ASSERT_EQ(e.buffer_rows, buffer);
    ASSERT_GE(e.seconds(), e.compute_seconds());
  });
}

TEST(Plan, ARankOfThousandsMakesItsOwnPlanAndItFitsThoseOfItsPeers) {
  const Mask mask = Mask::parse("causal", {1 << 20, 1 << 20});
  for (const Grid& grid : {Grid{1, 4096, 1}, Grid{1, 8, 512}, Grid{1, 4096, 1, Travel::queries}}) {
    const Schedule job = make_schedule(grid, "zigzag", mask);
    const Plan plan = job.plan_of(1234);
    std::map<Rank, Plan> peers;
    for (const std::size_t s : {std::size_t{0}, std::size_t{1}, std::size_t{700}, std::size_t{2860}, plan.steps.size() - 2})
      for (const Move& arrival : plan.steps[s].arrive) {
        const Step& sender = peers.try_emplace(arrival.seat, job.plan_of(arrival.seat)).first->second.steps[s];
        const Move expected{1234, arrival.rows};
        EXPECT_TRUE((sender.forward && *sender.forward == expected) || std::ranges::count(sender.lend, expected) == 1)
            << to_text(grid) << " step " << s;
      }
    EXPECT_FALSE(peers.empty());
  }
}

TEST(Plan, AWindowTakesAsManyStepsAsItReaches) {
  const Mask mask = Mask::parse("window:4095,0", {65536, 65536});
  const Job job(make_schedule({1, 64, 1}, "contiguous", mask));
  EXPECT_EQ(job.plans[0].steps.size(), 5U);  // shards of 1,024 rows: own block and four before it
  Index moved = 0;
  for (const Step& step : job.plans[40].steps) moved += count(rows_of(step.arrive));
  EXPECT_EQ(moved, 4095);  // exactly the window, nothing more
}

TEST(Plan, DocumentsMoveOnlyInsideThemselves) {
  std::vector<Index> offsets;
  for (Index d = 0; d <= 8; ++d) offsets.push_back(d * 64);
  const Mask mask = Mask::parse("documents", {512, 512, offsets});
  for (const Plan& plan : plans_of(make_schedule({1, 8, 1}, "contiguous", mask).planner))
    for (const Step& step : plan.steps) EXPECT_TRUE(step.arrive.empty());
}

TEST(Plan, ItineraryRowsArePermutationsAndRowZeroIsTheIdentity) {
  for (int inner = 1; inner <= 9; ++inner)
    for (int outer = 1; outer <= 9; ++outer) {
      const Grid grid{1, inner, outer};
      std::set<std::pair<Rank, Rank>> met;
      for (int s = 0; s < grid.seats(); ++s) {
        std::set<Rank> row;
        for (Rank r = 0; r < grid.seats(); ++r) {
          row.insert(visit(grid, s, r));
          met.insert({r, visit(grid, s, r)});
          if (s == 0) {
            EXPECT_EQ(visit(grid, 0, r), r);
          }
        }
        EXPECT_EQ(static_cast<int>(row.size()), grid.seats());
      }
      EXPECT_EQ(static_cast<int>(met.size()), grid.seats() * grid.seats());
    }
}

// Time of a causal ring over the ideal: in each step everybody waits for the slowest.
double critical_path(const char* partition, Index n, int ranks) {
  const Mask mask = Mask::parse("causal", {n, n});
  const Job job(make_schedule({1, ranks, 1}, partition, mask));
  Index path = 0;
  for (std::size_t s = 0; s < job.plans[0].steps.size(); ++s) {
    Index slowest = 0;
    for (const Plan& plan : job.plans) slowest = std::max(slowest, pairs(plan.steps[s].tiles));
    path += slowest;
  }
  return static_cast<double>(path) * ranks / static_cast<double>(mask.pairs());
}

TEST(Plan, ZigzagStripedAndBalancedShareCausalWorkEvenly) {
  EXPECT_LE(critical_path("zigzag", 65536, 8), 1.02);
  EXPECT_LE(critical_path("striped", 65536, 8), 1.02);
  EXPECT_LE(critical_path("balanced", 65536, 8), 1.02);
  EXPECT_GE(critical_path("contiguous", 65536, 8), 1.8);
}

TEST(Plan, BalancedSharesAnyMaskInProportionToTheWeights) {
  std::vector<Index> offsets{0, 100, 5000, 5100, 9000, 16384};
  for (const char* terms : {"full", "causal", "causal+documents", "documents", "window:500,0+sink:64"}) {
    const Mask mask = Mask::parse(terms, {16384, 16384, offsets});
    const std::vector<double> weights{1, 2, 1, 4};
    const Job job(make_schedule({1, 4, 1}, "balanced", mask, weights));
    for (std::size_t r = 0; r < weights.size(); ++r) {
      const double share = static_cast<double>(job.plans[r].pairs()) / static_cast<double>(mask.pairs());
      EXPECT_NEAR(share, weights[r] / 8, 0.05) << terms << " rank " << r;
    }
  }
}

TEST(Plan, RanksOfASeatCountAsTheSlowestOfThem) {
  EXPECT_EQ(weights_in_seats(std::vector<double>{1, 3, 2, 2}, 2), (std::vector<double>{1, 1, 2, 2}));
  const Mask mask = Mask::parse("full", {1200, 1200});
  const std::vector<double> weights{1, 3, 2, 8};
  const Schedule job = make_schedule({2, 2, 1}, "balanced", mask, weights);
  EXPECT_NEAR(static_cast<double>(job.planner.pairs_of(1)) / static_cast<double>(job.planner.pairs_of(0)), 2, 0.1);
}

TEST(Plan, GridsAndStrategiesSayWhyTheyRefuse) {
  EXPECT_EQ(parse_grid("2x4x1"), (Grid{2, 4, 1}));
  for (const char* bad : {"", "2", "2x4", "2x4x", "0x1x1", "2x4x1x1", "ax1x1", "-1x2x3", "99999x99999x1"})
    EXPECT_THROW(parse_grid(bad), Error) << bad;
  EXPECT_THROW(find_strategy("double-ring").grid({7, 1, 8, 8}), Error);
  EXPECT_THROW(find_strategy("rin"), Error);
  EXPECT_EQ(find_strategy("double-ring").grid({8, 4, 8, 8}), (Grid{1, 4, 2}));
  EXPECT_EQ(find_strategy("all-gather").grid({64, 4, 8, 8}), (Grid{1, 8, 8, Travel::gather}));
  EXPECT_EQ(find_strategy("hybrid").grid({8, 4, 8, 8}), (Grid{4, 2, 1}));
}

TEST(Weights, AreNoneForRanksThatAreAlikeAndHaveTheMeanOneForOthers) {
  EXPECT_TRUE(weights_of_rates(std::vector{1e11, 1.04e11, 1.02e11}).empty());
  EXPECT_TRUE(weights_of_rates(std::vector{7e10}).empty());
  EXPECT_EQ(weights_of_rates(std::vector{1e11, 3e11}), (std::vector{0.5, 1.5}));
  EXPECT_EQ(weights_of_rates(std::vector{2e11, 1e11, 1e11, 0.0}), (std::vector{2.0, 1.0, 1.0, 0.001}));
}

}  // namespace
}  // namespace annulus

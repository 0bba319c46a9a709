#include <gtest/gtest.h>

#include <array>
#include <map>
#include <random>

#include "annulus/base/error.hpp"
#include "annulus/plan/cost.hpp"

// What `auto` takes, against everything that could have been asked for.

namespace annulus {
namespace {

constexpr double worth_it = 0.98;  // the plainer of two wins when they differ by less
constexpr std::array partitions{"contiguous", "zigzag", "striped", "balanced"};

Prices prices(Index query_heads, Index kv_heads, LinkPrice near, LinkPrice far) {
  Prices p{query_heads, kv_heads, 16, 16, 4, false};
  p.forward = {{{1, 1e9}}, {}};
  p.backward_rates = {{{1, 8e8}}, {}};
  p.near = near;
  p.far = far;
  return p;
}

// The grids of all strategies that are legal.
std::vector<Grid> table(int ranks, const Prices& p) {
  std::vector<Grid> grids;
  for (const Strategy& strategy : strategies()) {
    try {
      grids.push_back(strategy.grid({ranks, p.ranks_per_node, p.query_heads, p.kv_heads}));
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): not legal
    }
  }
  return grids;
}

TEST(Choose, NothingThatFitsIsFasterByMoreThanTwoPercent) {
  std::map<std::string_view, int> chosen;
  for (unsigned seed = 0; seed < 150; ++seed) {
    std::mt19937 random(seed);
    const auto of = [&](const auto& all) { return all[random() % std::size(all)]; };
    const Index keys = 1 + static_cast<Index>(random() % 3000), kv_heads = of(std::array{1, 2, 3, 4});
    const Index queries = of(std::array<Index, 3>{keys, keys, std::min<Index>(keys, 1 + random() % 8)});
    const int ranks = of(std::array{1, 2, 3, 4, 6, 8, 11, 13, 16});
    const Mask mask = Mask::parse(of(std::array{"full", "causal", "causal+window:99,0"}), {queries, keys});
    const LinkPrice near{of(std::array{1e-6, 1e-3}), of(std::array{1e6, 1e9}), of(std::array{0.0, 1.0}), false};
    Prices p = prices(kv_heads * of(std::array{1, 4}), kv_heads, near, near);
    p.ranks_per_node = of(std::array{2, 4, 1 << 30});
    p.far.bytes_per_second /= of(std::array{1, 20});
    p.backward = random() % 2 == 0;
    if (random() % 3 == 0)
      for (int rank = 0; rank < ranks; ++rank) p.weights.push_back(of(std::array{1, 1, 2, 3}));
    const auto scheduled = [&](const Grid& grid, std::string_view partition) {
      return make_schedule(grid, partition, mask, partition == "balanced" ? p.weights : std::vector<double>{});
    };
    const Choice choice = choose(mask, ranks, p, nullptr, "auto");
    const Schedule job = scheduled(choice.grid, choice.partition);
    const Estimate mine = estimate(job, p);
    ++chosen[strategy_of(choice.grid)];
    for (const char* partition : partitions) {
      const Index most = most_memory(scheduled({1, ranks, 1}, partition), p);
      ASSERT_TRUE(choice.partition != partition || footprint(job, mine.buffer_rows, p).total() <= most)
          << "seed " << seed;
      for (const Grid& grid : table(ranks, p)) {
        const Schedule other = scheduled(grid, partition);
        const Estimate e = estimate(other, p);
        if (footprint(other, e.buffer_rows, p).total() > most) continue;
        ASSERT_LE(mine.seconds(), e.seconds() / worth_it * (1 + 1e-12))
            << "seed " << seed << ": " << strategy_of(choice.grid) << " " << to_text(choice.grid) << " "
            << choice.partition << " was chosen, and not " << strategy_of(grid) << " " << to_text(grid) << " "
            << partition;
      }
    }
  }
  for (const char* name : {"ring", "ulysses", "hybrid", "all-gather", "pass-q", "tree"})
    EXPECT_GT(chosen[name], 0) << name << " was never the fastest: these cases do not tell much";
}

TEST(Choose, TakesNothingThatMovesMoreInMoreStepsInAsMuchTime) {
  Prices p = prices(8, 8, {0, 1e15, 1, false}, {});
  p.forward = {{{1, 1e6}}, {}};  // nothing but work counts, which all share evenly
  const Mask mask = Mask::parse("full", {1024, 1024});
  const Choice choice = choose(mask, 8, p, nullptr, "contiguous");
  const auto all = [&](const Grid& grid) {
    const Schedule job = make_schedule(grid, "contiguous", mask);
    const Estimate e = estimate(job, p);
    return std::array<Index, 3>{e.steps, e.total_bytes + e.exchange_total, footprint(job, e.buffer_rows, p).total()};
  };
  const auto mine = all(choice.grid);
  for (const Grid& grid : table(8, p)) {
    const auto other = all(grid);
    EXPECT_FALSE(other[0] < mine[0] && other[1] < mine[1] && other[2] < mine[2])
        << to_text(choice.grid) << to_text(grid);
  }
}

// 4,096 ranks and more are looked at in samples first.
TEST(Choose, IsNoSlowerThanTheTableOfManyRanks) {
  Prices p = prices(8, 8, {2e-6, 4e11, 1, false}, {});
  p.forward = {{{1, 5e14}}, {}};
  p.ranks_per_node = 8;
  p.far = {3e-6, 4e10, 1, false};
  const Mask mask = Mask::parse("window:4095,0", {20'000'000, 20'000'000});
  const Choice choice = choose(mask, 4096, p, nullptr, "auto");
  const double mine = estimate(make_schedule(choice.grid, choice.partition, mask), p).seconds();
  const Index most = most_memory(make_schedule({1, 4096, 1}, choice.partition, mask), p);
  for (const Grid& grid : table(4096, p)) {
    const Schedule other = make_schedule(grid, choice.partition, mask);
    const Estimate e = estimate(other, p);
    const bool fits = footprint(other, e.buffer_rows, p).total() <= most;
    EXPECT_TRUE(!fits || mine <= e.seconds() / worth_it) << strategy_of(grid);
  }
}

TEST(Choose, CountsAsFasterWhatIsFasterThanWhatItTakes) {
  const Mask mask = Mask::parse("causal", {8192, 8192});
  for (const int ranks : {8, 13, 16}) {
    const Prices p = prices(8, 8, {2e-6, 1e9, 1, false}, {});
    const Choice choice = choose(mask, ranks, p, nullptr, "auto");
    const double mine = estimate(make_schedule(choice.grid, choice.partition, mask), p).seconds();
    Index faster = 0;
    for (const char* partition : partitions) {
      const Index most = most_memory(make_schedule({1, ranks, 1}, partition, mask), p);
      for (const Grid& grid : table(ranks, p)) {
        const Schedule other = make_schedule(grid, partition, mask);
        const Estimate e = estimate(other, p);
        if (e.seconds() < mine && footprint(other, e.buffer_rows, p).total() > most) ++faster;
      }
    }
    EXPECT_EQ(choice.reason.find("times the memory") != std::string::npos, faster > 0) << choice.reason;
  }
}

TEST(Choose, SharesWorkByTheWeightsOfTheRanks) {
  Prices p = prices(2, 2, {0, 1e12, 1, false}, {});
  p.weights = {1, 3};
  const Mask mask = Mask::parse("full", {2048, 2048});
  const Choice choice = choose(mask, 2, p, nullptr, "auto");
  EXPECT_EQ(choice.partition, "balanced");
  EXPECT_EQ(choice.grid.heads, 1) << "heads are shared out evenly, so the fast rank would wait";
  const Estimate e = estimate(make_schedule(choice.grid, choice.partition, mask, p.weights), p);
  EXPECT_LE(e.imbalance_in_all(2), 1.02);
  EXPECT_LE(e.seconds(), 1.02 * least_seconds(make_schedule({1, 2, 1}, "balanced", mask), prices(2, 2, {}, {})));
}

// A slow link and a backward pass: gradients of gathered blocks go straight home, those of a ring ride on behind them.
Prices slow() {
  Prices p = prices(1, 1, {0, 1e7, 0, false}, {});
  p.backward = true;
  return p;
}

TEST(Choose, GathersWhereAWindowReachesSeveralBlocks) {
  const Mask mask = Mask::parse("causal+window:300,0", {704, 704});
  const Choice choice = choose(mask, 8, slow(), nullptr, "contiguous");
  EXPECT_EQ(choice.grid, (Grid{1, 8, 1, Travel::gather}));
  const auto seconds = [&](const Grid& grid) {
    return estimate(make_schedule(grid, "contiguous", mask), slow()).seconds();
  };
  EXPECT_LT(seconds(choice.grid), 0.9 * seconds({1, 8, 1}));
}

TEST(Choose, DoesNotGatherWhatTakesTooMuchMemory) {
  const Mask mask = Mask::parse("causal", {1144, 1144});  // a prime number of ranks gathers everything at once
  const auto seconds = [&](Travel travel) {
    return estimate(make_schedule({1, 13, 1, travel}, "contiguous", mask), slow()).seconds();
  };
  for (const Travel travel : {Travel::keys, Travel::queries})
    ASSERT_LT(seconds(Travel::gather), 0.97 * seconds(travel));
  const Choice choice = choose(mask, 13, slow(), nullptr, "contiguous");
  EXPECT_NE(choice.grid.travel, Travel::gather);
  EXPECT_NE(choice.reason.find("faster, in more than 5 times the memory of a ring"), std::string::npos)
      << choice.reason;
  const Grid asked{1, 13, 1, Travel::gather};
  EXPECT_EQ(choose(mask, 13, slow(), &asked, "auto").grid, asked);
}

TEST(Choose, KeepsToALimitOfMemoryWhereAnythingDoes) {
  const Mask mask = Mask::parse("causal+window:300,0", {704, 704});  // gathering is quickest, and takes most
  const auto memory = [&](const Choice& choice) {
    const Schedule job = make_schedule(choice.grid, choice.partition, mask);
    return footprint(job, estimate(job, slow()).buffer_rows, slow()).total();
  };
  const auto kept_to = [&](Index limit) {
    Prices p = slow();
    p.memory_limit = limit;
    return choose(mask, 8, p, nullptr, "contiguous");
  };
  const Choice free = choose(mask, 8, slow(), nullptr, "contiguous");
  EXPECT_EQ(kept_to(memory(free)).grid, free.grid);
  const Choice less = kept_to(memory(free) - 1);
  EXPECT_LT(memory(less), memory(free));
  EXPECT_NE(less.reason.find("faster, in more memory than there is"), std::string::npos) << less.reason;
  const Choice least = kept_to(1);
  EXPECT_LE(memory(least), memory(less));
  EXPECT_EQ(kept_to(memory(least)).grid, least.grid);
  EXPECT_NE(least.reason.find("none of which fits"), std::string::npos) << least.reason;
}

}  // namespace
}  // namespace annulus

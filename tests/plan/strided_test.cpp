#include "plan/strided.hpp"

#include <gtest/gtest.h>

#include <random>

#include "annulus/base/error.hpp"
#include "plan/spans.hpp"
#include "support/schedules.hpp"

// What is looked up of striped shards, against looking at every region.

namespace annulus {
namespace {

template <class Check>
void for_random_cases(int trials, const Check& check) {
  std::mt19937_64 random(23);
  const auto up_to = [&](Index n) { return static_cast<Index>(random() % static_cast<std::uint64_t>(n + 1)); };
  const std::vector<Grid> grids{{1, 1, 1}, {1, 5, 1}, {1, 8, 1},  {1, 4, 2},
                                {2, 4, 1}, {8, 1, 1}, {1, 16, 1}, {1, 6, 1, Travel::queries}};
  Prices prices = plain({0, 1, 1, false}, true);
  prices.forward = {{{1, 1}, {64, 3}}, {{1, 2}, {16, 7}}};  // no two tiles take the same
  prices.backward_rates = {{{1, 3}, {64, 11}}, {{1, 5}, {16, 13}}};
  prices.key_bytes_per_second = 40;
  for (int trial = 0; trial < trials; ++trial) {
    const Index each = 1 + up_to(40), n = 8 + up_to(400);
    Extent extent{n, n, {0}};
    while (extent.documents.back() < n)
      extent.documents.push_back(std::min(n, extent.documents.back() + (trial % 2 == 0 ? each : 1 + up_to(40))));
    std::string terms = up_to(3) == 0 ? "full" : "causal";
    if (up_to(4) > 0) terms += "+documents";
    if (up_to(1) == 0) terms += sentence("+window:", up_to(30), ",", up_to(20));
    if (up_to(2) == 0) terms += sentence("+sink:", up_to(9));
    if (up_to(2) == 0) terms += sentence("+global:", up_to(n / 2), ",", n / 2 + 1 + up_to(n / 3));
    if (up_to(3) == 0) terms += sentence("+prefix:", up_to(n));
    const Mask mask = Mask::parse(terms, extent);
    for (const Grid& grid : grids) {
      SCOPED_TRACE(sentence(terms, ", ", n, " tokens, ", extent.documents.size() - 1, " documents, ", to_text(grid)));
      const Schedule job = make_schedule(grid, "striped", mask);
      check(job.planner, Paces(job, prices));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

void expect_same(const Sight& found, const Sight& sight) {
  ASSERT_EQ(found.pairs, sight.pairs);
  ASSERT_EQ(found.rows, sight.rows);
  ASSERT_EQ(found.forward_seconds, sight.forward_seconds);  // to the last bit: sums in the same order
  ASSERT_EQ(found.backward_seconds, sight.backward_seconds);
}

TEST(StridedTiles, AreThoseOfEveryRegion) {
  int served = 0;
  for_random_cases(80, [&](const Planner& planner, const Paces& paces) {
    StridedTiles tiles(planner.stays(), planner.travels(), planner.seen(), &paces, true);
    if (!tiles.serves()) return;
    ++served;
    Sight found, sight;
    sight.paces = &paces;
    sight.backward = true;
    for (Rank seat = 0; seat < planner.seats(); ++seat)
      for (Rank origin = 0; origin < planner.seats(); ++origin) {
        SCOPED_TRACE(sentence("seat ", seat, ", block ", origin));
        const auto stay = planner.stays().runs(seat), travel = planner.travels().runs(origin);
        tiles.look(stay, travel, found);
        look(stay, travel, planner.seen(), sight);
        expect_same(found, sight);
        if (testing::Test::HasFatalFailure()) return;
      }
  });
  EXPECT_GE(served, 300);
}

TEST(StridedTiles, OfTheSeatsOfASpanAreAlike) {
  int spans_of_many = 0;
  for_random_cases(40, [&](const Planner& planner, const Paces& paces) {
    StridedTiles tiles(planner.stays(), planner.travels(), planner.seen(), &paces, true);
    if (!tiles.serves()) return;
    const Spans spans(planner, tiles);
    Sight first, other;
    for (int row = 0; row < planner.seats(); ++row) {
      int seats = 0;
      spans.for_row(row, [&](const Span& span) {
        seats += span.count;
        spans_of_many += span.count > 1 ? 1 : 0;
        tiles.look(planner.stays().runs(span.seat), planner.travels().runs(span.origin), first);
        for (int i = 1; i < span.count; ++i) {
          const Rank seat = span.seat + i * span.stride, origin = span.origin + i * span.stride;
          ASSERT_EQ(origin, visit(planner.grid(), row, seat));
          tiles.look(planner.stays().runs(seat), planner.travels().runs(origin), other);
          expect_same(other, first);
        }
      });
      ASSERT_EQ(seats, planner.seats());
    }
  });
  EXPECT_GT(spans_of_many, 1000);
}

TEST(StridedTiles, ServeStripedShardsAndManyRegionsOnly) {
  const auto serves = [](const char* partition, const char* terms) {
    const Mask mask = Mask::parse(terms, {64, 64, {0, 10, 20, 30, 40, 50, 64}});
    const Schedule job = make_schedule({1, 4, 1}, partition, mask);
    return StridedTiles(job.planner.stays(), job.planner.travels(), mask).serves();
  };
  EXPECT_TRUE(serves("striped", "causal+documents"));
  EXPECT_FALSE(serves("striped", "causal"));
  for (const char* partition : {"contiguous", "zigzag", "balanced"})
    EXPECT_FALSE(serves(partition, "causal+documents"));
}

}  // namespace
}  // namespace annulus

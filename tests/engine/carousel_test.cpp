#include "annulus/engine/carousel.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/ranks.hpp"

namespace annulus {
namespace {

// The rows of a seat say where they come from: origin and row.
double mark(Rank origin, Index row) { return 1000.0 * origin + static_cast<double>(row); }

// Takes blocks around and checks every row that is held in every step. own_shared: the own block lies in shared memory
// from the beginning. Returns how many visits were read in place.
int visits_in_place(const Schedule& job, Transport& transport, bool own_shared) {
  CpuDevice cpu;
  Timeline timeline;
  const Plan plan = job.plan_of(transport.rank());
  Device& place = own_shared ? lending(transport, cpu) : cpu;
  const Array own(place, DType::f64, plan.own_rows, 1, 3);
  int in_place = 0;
  for (int pass = 0; pass < 3; ++pass) {  // the second pass finds its memory in use before; owners write between passes
    for (Index row = 0; row < plan.own_rows; ++row) *own.rows().at<double>(row) = mark(plan.seat, row) + 0.1 * pass;
    circulate(plan, {}, own, cpu, transport, timeline, [&](std::size_t s, const Rows& block, Pending&) {
      Index at = 0;
      for (const Move& move : plan.steps[s].held)
        for (const Range& range : move.rows)
          for (Index row = range.begin; row < range.end; ++row, ++at)
            EXPECT_EQ(*block.at<double>(at), mark(move.seat, row) + 0.1 * pass) << "step " << s;
      EXPECT_EQ(at, block.tokens);
      if (s > 0 && at > 0 && transport.shared()->holds(block.data)) ++in_place;
    });
  }
  return in_place;
}

TEST(Carousel, BlocksOfOnePieceAreReadWhereTheirOwnersHaveThem) {
  for (const bool own_shared : {true, false})
    for (const int ranks : {2, 3, 5})
      on_ranks(ranks, [&](Transport& transport) {
        const Schedule ring = make_schedule({1, ranks, 1}, "contiguous", Mask::parse("full", {40, 40}));
        EXPECT_EQ(visits_in_place(ring, transport, own_shared), 3 * (ranks - 1));
      });
}

TEST(Carousel, BlocksOfSeveralPiecesAreBroughtTogether) {
  for (const char* terms : {"causal+window:4,0+sink:2", "causal+window:20,0+sink:3", "full", "causal"})
    for (const char* partition : {"contiguous", "zigzag", "striped", "balanced"})
      for (const Travel travel : {Travel::keys, Travel::gather, Travel::queries, Travel::tree})
        on_ranks(4, [&](Transport& transport) {
          SCOPED_TRACE(sentence(terms, " ", partition, " ", static_cast<int>(travel)));
          visits_in_place(make_schedule({1, 4, 1, travel}, partition, Mask::parse(terms, {61, 61})), transport, true);
        });
}

// Every visitor adds 1 to each row that is here; returns how many additions read their rows in place.
int additions_in_place(const Schedule& job, Transport& transport) {
  CpuDevice cpu;
  Timeline timeline;
  const Plan plan = job.plan_of(transport.rank());
  const Array own(cpu, DType::f64, plan.own_rows, 1, 40), block(cpu, DType::f64, plan.own_rows, 1, 1);
  int in_place = 0;
  Summation counted = plain_sums(cpu);
  counted.add = [&](const Rows& from, const Rows& into) {
    if (transport.shared()->holds(from.data)) ++in_place;
    add(from, into);
  };
  for (int pass = 0; pass < 3; ++pass) {
    clear(own);
    Trail trail(plan, {}, own, cpu, transport, timeline, counted);
    circulate(
        plan, {}, block, cpu, transport, timeline,
        [&](std::size_t s, const Rows&, Pending&) {
          const Rows sums = trail.begin(s);
          for (Index row = 0; row < sums.tokens; ++row)
            for (Index c = 0; c < 40; ++c) sums.at<double>(row)[c] += 1 + 0.5 * pass;
          trail.end(s);
        },
        [&] { trail.home(); });
    for (const double sum : own.elements<double>()) EXPECT_EQ(sum, transport.ranks() * (1 + 0.5 * pass));
  }
  return in_place;
}

TEST(Trail, SumsThatLeaveLastAreReadWhereTheyAre) {
  for (const int ranks : {2, 3, 5})
    on_ranks(ranks, [&](Transport& transport) {
      const Schedule ring = make_schedule({1, ranks, 1}, "contiguous", Mask::parse("full", {40, 40}));
      // of those that ride on and come home, what arrives after the last two steps with visitors
      EXPECT_EQ(additions_in_place(ring, transport), 3 * std::min(2, ranks - 1));
    });
}

}  // namespace
}  // namespace annulus

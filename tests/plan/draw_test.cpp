#include "annulus/plan/draw.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// What a reader of `annulus plan` sees of it.

namespace annulus {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string drawing(Travel travel, int ranks = 4) {
  return draw(make_schedule({1, ranks, 1, travel}, "contiguous", Mask::parse("full", {64, 64})));
}

TEST(Draw, NamesWhoseRowsAreWorkedOnAndHowMuchWorkThatIs) {
  EXPECT_THAT(drawing(Travel::keys, 2), HasSubstr("    0    0 ████    1 ████  \n"
                                                  "    1    1 ████    0 ████  \n"));
  const Mask causal = Mask::parse("causal", {64, 64});
  EXPECT_THAT(draw(make_schedule({1, 2, 1}, "contiguous", causal)), HasSubstr("    0    0 ██"));
}

TEST(Draw, SaysWhatTravels) {
  EXPECT_THAT(drawing(Travel::keys), HasSubstr("(each cell: whose keys and values are worked on"));
  EXPECT_THAT(drawing(Travel::gather), HasSubstr("the first of those whose keys and values"));
  EXPECT_THAT(drawing(Travel::queries), HasSubstr("(each cell: whose queries are worked on"));
  EXPECT_THAT(drawing(Travel::queries), Not(HasSubstr("keys")));
  EXPECT_THAT(drawing(Travel::tree), HasSubstr("then 2 rounds of pairwise merges"));
  EXPECT_THAT(drawing(Travel::tree, 2), HasSubstr("then 1 round of pairwise merges"));
}

TEST(Draw, TellsWhatIsLeftOut) {
  const std::string text = draw(make_schedule({1, 20, 1}, "contiguous", Mask::parse("full", {64, 64})), 16, 10);
  EXPECT_THAT(text, HasSubstr("... 4 more\n"));
  EXPECT_THAT(text, HasSubstr("... 10 more steps\n"));
}

}  // namespace
}  // namespace annulus

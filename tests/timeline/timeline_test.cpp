#include "annulus/timeline/timeline.hpp"

#include <gmock/gmock.h>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

TEST(Timeline, AnEventSwallowsThoseOfTheSameNameInsideIt) {
  Timeline timeline;
  timeline.keep(true);
  const double outer = timeline.now();
  timeline.record("wait", 1, timeline.now());
  timeline.record("compute", 2, timeline.now());
  timeline.record("wait", 3, timeline.now());
  timeline.record("control", 9, timeline.now());
  timeline.record("wait", 4, outer);
  ASSERT_EQ(timeline.events().size(), 3U) << "the first wait lies before another name: it stays";
  EXPECT_EQ(timeline.events()[1].what, "compute");
  EXPECT_EQ(timeline.events()[2].step, 4);
}

TEST(Timeline, ASpanIsAnEventThatAWatcherHearsOfInTime) {
  struct Heard final : Timeline::Watcher {
    void begin(std::string_view what, Index step) override { said += sentence("<", what, " ", step); }
    void end() override { said += ">"; }
    std::string said;
  } heard;
  Timeline timeline;
  timeline.keep(true);
  { const Timeline::Span unheard(timeline, "wait", 1); }
  timeline.watch(&heard);
  {
    const Timeline::Span outer(timeline, "compute", 2);
    { const Timeline::Span inner(timeline, "wait", 3); }
    EXPECT_EQ(heard.said, "<compute 2<wait 3>");
  }
  EXPECT_EQ(heard.said, "<compute 2<wait 3>>");
  ASSERT_EQ(timeline.events().size(), 3U);
  EXPECT_EQ(timeline.events()[1].what, "wait");
  EXPECT_EQ(timeline.events()[2].what, "compute");
  EXPECT_LE(timeline.events()[2].begin_seconds, timeline.events()[1].begin_seconds);
}

TEST(Timeline, ATotalIsTheSumOfItsEvents) {
  Timeline timeline;
  timeline.keep(true);
  for (int i = 0; i < 5; ++i) timeline.record(i % 2 == 0 ? "compute" : "wait", i, timeline.now() - 1);
  EXPECT_NEAR(timeline.total("compute", -2), 3, 0.5);
  EXPECT_NEAR(timeline.total("wait", -2), 2, 0.5);
  EXPECT_EQ(timeline.total("merge"), 0);
  EXPECT_EQ(timeline.total("compute", timeline.now()), 0) << "nothing began after now";
}

TEST(Timeline, KeepsNothingUnlessToldToAndForgetsWhenToldTo) {
  Timeline timeline;
  const auto do_something = [&] {
    timeline.record({.bytes = 7});
    const Timeline::Span span(timeline, "compute", 1);
  };
  do_something();
  EXPECT_TRUE(timeline.events().empty());
  EXPECT_TRUE(timeline.messages().empty());
  timeline.keep(true);
  do_something();
  do_something();
  EXPECT_EQ(timeline.messages().size(), 2U);
  EXPECT_EQ(timeline.events().back().what, "compute");
  timeline.clear();
  EXPECT_TRUE(timeline.events().empty());
  EXPECT_TRUE(timeline.messages().empty());
  do_something();
  EXPECT_EQ(timeline.events().size(), 1U);
  timeline.keep(false);
  do_something();
  EXPECT_EQ(timeline.events().size(), 1U);
}

}  // namespace
}  // namespace annulus

#include "app/progress.hpp"

#include <gtest/gtest.h>

namespace annulus::app {
namespace {

TEST(SecondsText, SuitsTheLength) {
  EXPECT_EQ(seconds_text(0.0625), "0.062 s");
  EXPECT_EQ(seconds_text(9.5), "9.5 s");
  EXPECT_EQ(seconds_text(59), "59 s");
  EXPECT_EQ(seconds_text(61), "1 min 01 s");
  EXPECT_EQ(seconds_text(3600), "1 h 00 min");
  EXPECT_EQ(seconds_text(86400), "24 h 00 min");
  EXPECT_EQ(seconds_text(10 * 86400.0), "10 days");
  EXPECT_EQ(seconds_text(1e15), "1.16e+10 days");  // no overflow
}

}  // namespace
}  // namespace annulus::app

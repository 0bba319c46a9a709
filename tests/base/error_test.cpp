#include "annulus/base/error.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string_view>

#include "annulus/base/types.hpp"

namespace annulus {
namespace {

TEST(Error, RemembersWhereTheClaimWasMade) {
  const unsigned before = __LINE__;
  try {
    require(1 + 1 == 3, "arithmetic must hold");
    FAIL() << "a false claim went through";
  } catch (const Error& e) {
    EXPECT_EQ(e.where().line(), before + 2);
    EXPECT_TRUE(std::string_view(e.where().file_name()).ends_with("error_test.cpp"));
  }
}

TEST(Error, SaysTheSentenceAndCarriesTheExitCode) {
  try {
    require<Failure::file>(false, "rank ", 3, " waits for ", 2.5, " seconds");
    FAIL() << "a false claim went through";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rank 3 waits for 2.5 seconds");
    EXPECT_EQ(e.failure(), Failure::file);
    EXPECT_EQ(e.exit_code(), 5);
  }
}

TEST(Error, ExitCodesAreThoseUsersRelyOn) {
  const std::pair<Failure, int> codes[]{{Failure::runtime, 1}, {Failure::usage, 2}, {Failure::tolerance, 3},
                                        {Failure::fit, 4},     {Failure::file, 5},  {Failure::communication, 6}};
  for (const auto& [failure, code] : codes) EXPECT_EQ(Error(failure, "").exit_code(), code);
}

TEST(Error, AClaimThatHoldsDoesNothing) {
  require(true, "never read");
  const int* pointer = nullptr;
  EXPECT_THROW(require(pointer, "a pointer is a claim too"), Error);
}

TEST(Types, NarrowLetsThroughExactlyWhatFitsIn32Bits) {
  constexpr Index least = std::numeric_limits<int>::min(), most = std::numeric_limits<int>::max();
  for (const Index fits : {least, Index{-1}, Index{0}, Index{46341}, most}) EXPECT_EQ(narrow(fits), fits);
  for (const Index wide : {least - 1, most + 1, Index{46341} * 46341, Index{1} << 32, Index{1} << 62}) {
    try {
      narrow(wide);
      FAIL() << wide << " went through";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(std::to_string(wide)), std::string::npos) << e.what();
    }
  }
}

// floor_div(a, b) is the q with q b <= a < (q + 1) b for b > 0, and the mirror image for b < 0; ceil_div is -floor(-a).
TEST(Types, DivisionRoundsTowardsTheInfinityItIsNamedFor) {
  for (Index a = -40; a <= 40; ++a)
    for (Index b = -9; b <= 9; ++b) {
      if (b == 0) continue;
      Index floor = -100;
      while (b > 0 ? (floor + 1) * b <= a : (floor + 1) * b >= a) ++floor;  // the largest q with q <= a / b
      EXPECT_EQ(floor_div(a, b), floor) << a << " / " << b;
      EXPECT_EQ(ceil_div(a, b), floor * b == a ? floor : floor + 1) << a << " / " << b;
    }
  constexpr Index wide = Index{1} << 60;
  EXPECT_EQ(floor_div(-wide - 1, wide), -2);
  EXPECT_EQ(ceil_div(wide + 1, wide), 2);
}

TEST(Types, EveryDTypeHasANameThatReadsBack) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f64})
    EXPECT_EQ(parse_dtype(name_of(type)), type);
  for (const char* bad : {"", "f8", "F32", "float", "bf16 "}) EXPECT_THROW(parse_dtype(bad), Error) << bad;
  EXPECT_EQ(bytes_of(DType::f64), 8);
  EXPECT_EQ(bytes_of(DType::f32), 4);
  EXPECT_EQ(bytes_of(DType::bf16), 2);
  EXPECT_EQ(bytes_of(DType::f16), 2);
}

}  // namespace
}  // namespace annulus

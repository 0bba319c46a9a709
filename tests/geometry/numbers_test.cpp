#include "annulus/geometry/numbers.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

TEST(Numbers, SizesMeanWhatTheirSuffixSays) {
  const std::pair<const char*, Index> sizes[]{{"0", 0},
                                              {"7", 7},
                                              {"64k", 64'000},
                                              {"64K", 64'000},
                                              {"64Ki", 65'536},
                                              {"1M", 1'000'000},
                                              {"1Mi", 1'048'576},
                                              {"3G", 3'000'000'000},
                                              {"4Gi", Index{4} << 30},
                                              {"2Ti", Index{2} << 40},
                                              {"1152921504606846976", far}};
  for (const auto& [text, value] : sizes) EXPECT_EQ(parse_count(text), value) << text;
  EXPECT_EQ(parse_count("-3", -5), -3);
}

TEST(Numbers, BytesMayEndWithB) {
  for (const char* text : {"80GiB", "80Gi"}) EXPECT_EQ(parse_bytes(text), Index{80} << 30) << text;
  for (const char* text : {"141GB", "141G"}) EXPECT_EQ(parse_bytes(text), 141'000'000'000) << text;
  EXPECT_EQ(parse_bytes("7B"), 7);
  EXPECT_EQ(parse_bytes("7"), 7);
  for (const char* bad : {"", "B", "GB", "80GBB", "80 GB", "1.5GB", "80gb", "80X", "0B", "-1G"})
    EXPECT_THROW(parse_bytes(bad, 1), Error) << bad;
}

TEST(Numbers, AnythingElseIsRefusedInASentenceThatQuotesIt) {
  for (const char* bad : {"",
                          "-",
                          "+5",
                          " 5",
                          "5 ",
                          "k",
                          "1kk",
                          "1ki",
                          "1.5k",
                          "1e3",
                          "0x10",
                          "nan",
                          "inf",
                          "5-6",
                          "99999999999999999999",
                          "1152921504606846977",
                          "1073741825Gi",
                          "-1",
                          "-9223372036854775808",
                          "-9223372036854775809"}) {
    try {
      parse_count(bad);
      ADD_FAILURE() << "'" << bad << "' was taken for a size";
    } catch (const Error& e) {
      EXPECT_EQ(e.failure(), Failure::usage);
      EXPECT_NE(std::string(e.what()).find(sentence("'", bad, "'")), std::string::npos) << e.what();
    }
  }
  EXPECT_THROW(parse_count("-9223372036854775808", std::numeric_limits<Index>::min()), Error);
  EXPECT_THROW(parse_count("0", 1), Error);
}

// Random lists, in any order and with repetitions, hold exactly the numbers they name.
TEST(Numbers, AListHoldsWhatItNamesSortedAndJoined) {
  constexpr std::uint64_t seed = 3;
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 500; ++trial) {
    std::string text;
    std::set<Index> named;
    for (auto items = 1 + random() % 6; items > 0; --items) {
      const auto first = static_cast<Index>(random() % 40), last = first + static_cast<Index>(random() % 5);
      text += sentence(text.empty() ? "" : ",", first);
      if (last > first || random() % 2 == 0) text += sentence("-", last);
      for (Index i = first; i <= last; ++i) named.insert(i);
    }
    std::set<Index> held;
    Index end = -1;
    for (const Range r : parse_list(text)) {
      ASSERT_GT(r.begin, end) << "ranges must be sorted and apart: " << text << ", seed " << seed;
      end = r.end;
      for (Index i = r.begin; i < r.end; ++i) held.insert(i);
    }
    ASSERT_EQ(held, named) << text << ", seed " << seed;
  }
  EXPECT_EQ(parse_list("1Ki-2Ki"), (std::vector<Range>{{1024, 2049}}));
  for (const char* bad : {"", ",", "1,", ",1", "3-1", "1-", "-1", "1-2-3", "a", "1;2"})
    EXPECT_THROW(parse_list(bad), Error) << bad;
}

TEST(Numbers, GroupingOnlyAddsCommasEveryThreeDigits) {
  for (const Index value : {Index{0}, Index{9}, Index{999}, Index{1000}, Index{-999}, Index{-1000}, Index{1234567},
                            Index{-123456}, far, std::numeric_limits<Index>::min()}) {
    std::string text = grouped(value);
    const std::size_t sign = value < 0 ? 1 : 0;
    for (std::size_t i = 0; i + sign < text.size(); ++i)
      EXPECT_EQ(text[text.size() - 1 - i] == ',', i % 4 == 3) << text;
    std::erase(text, ',');
    EXPECT_EQ(text, std::to_string(value));
  }
  EXPECT_EQ(grouped(1234567), "1,234,567");
}

TEST(Numbers, BytesAreWrittenInTheUnitThatKeepsThemShort) {
  const std::pair<double, const char*> sizes[]{
      {0, "0 B"},          {1, "1 B"},          {1023, "1023 B"},     {1024, "1.0 KiB"},
      {1536, "1.5 KiB"},   {102400, "100 KiB"}, {1048576, "1.0 MiB"}, {0x1.8p31, "3.0 GiB"},
      {0x1p40, "1.0 TiB"}, {0x1p50, "1.0 PiB"}, {0x1p60, "1024 PiB"}};
  for (const auto& [bytes, text] : sizes) EXPECT_EQ(bytes_text(bytes), text);
}

TEST(Numbers, DurationsHaveThreeDigitsAndFittingUnits) {
  const std::vector<std::pair<double, std::string>> durations{{0, "0 us"},
                                                              {1.234e-8, "0.01 us"},
                                                              {9.994e-6, "9.99 us"},
                                                              {9.996e-6, "10.0 us"},
                                                              {99.96e-6, "100 us"},
                                                              {999.4e-6, "999 us"},
                                                              {999.6e-6, "1.00 ms"},
                                                              {0.0123456, "12.3 ms"},
                                                              {0.9996, "1.00 s"},
                                                              {22.04, "22.0 s"},
                                                              {119, "119 s"},
                                                              {150, "2.50 min"},
                                                              {7199, "120 min"},
                                                              {7200, "2.00 h"},
                                                              {86400 * 10, "10.0 days"},
                                                              {1e15, "1.16e+10 days"}};
  for (const auto& [seconds, text] : durations) EXPECT_EQ(duration_text(seconds), text);
}

}  // namespace
}  // namespace annulus

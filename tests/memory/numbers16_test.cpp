#include "annulus/memory/numbers16.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace annulus {
namespace {

// A 16-bit format by its definition: sign, exponent bits, mantissa bits, slowly and in float64.
struct Format {
  int exponent_bits, mantissa_bits;
  float (*to_float)(std::uint16_t);
  std::uint16_t (*to_bits)(float);

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  std::uint16_t infinity() const { return static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits); }
  /// The value of positive bits below infinity; at infinity, the next power of two, to which overflow is measured.
  double value(int bits) const {
    const int exponent = bits >> mantissa_bits, mantissa = bits & ((1 << mantissa_bits) - 1);
    if (exponent == 0) return std::ldexp(mantissa, 1 - bias() - mantissa_bits);
    return std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias() - mantissa_bits);
  }
  /// The nearest positive number, ties to the even mantissa, searched between lower and lower + 1.
  std::uint16_t nearest(double x, int lower) const {
    const double below = x - value(lower), above = value(lower + 1) - x;
    if (below != above) return static_cast<std::uint16_t>(below < above ? lower : lower + 1);
    return static_cast<std::uint16_t>(lower % 2 == 0 ? lower : lower + 1);
  }
};

constexpr Format bf16{8, 7, from_bf16, to_bf16}, f16{5, 10, from_f16, to_f16};

class Numbers16 : public testing::TestWithParam<Format> {};

TEST_P(Numbers16, EveryBitPatternIsTheNumberItIsDefinedAs) {
  const Format& f = GetParam();
  for (int bits = 0; bits < 0x8000; ++bits) {
    const float positive = f.to_float(static_cast<std::uint16_t>(bits));
    const float negative = f.to_float(static_cast<std::uint16_t>(bits | 0x8000));
    if (bits > f.infinity()) {
      ASSERT_TRUE(std::isnan(positive) && std::isnan(negative)) << std::hex << bits;
      continue;
    }
    const double value = bits == f.infinity() ? std::numeric_limits<double>::infinity() : f.value(bits);
    ASSERT_EQ(positive, value) << std::hex << bits;
    ASSERT_EQ(negative, -value) << std::hex << bits;
    ASSERT_TRUE(std::signbit(negative));
  }
}

TEST_P(Numbers16, GoingToFloatAndBackChangesNoBitAndKeepsNaN) {
  const Format& f = GetParam();
  for (int bits = 0; bits < 0x10000; ++bits) {
    const auto start = static_cast<std::uint16_t>(bits);
    const std::uint16_t back = f.to_bits(f.to_float(start));
    if ((bits & 0x7fff) > f.infinity()) {
      ASSERT_GT(back & 0x7fff, f.infinity()) << std::hex << bits;
    } else {
      ASSERT_EQ(back, start) << std::hex << bits;
    }
  }
}

// Between any two neighbours: just above the lower, just below the middle, the middle, just above it, just below the
// upper, and somewhere. Rounding can only change at these points, so this decides every float up to overflow.
TEST_P(Numbers16, EveryIntervalRoundsToNearestAndTiesToEven) {
  const Format& f = GetParam();
  constexpr std::uint64_t seed = 4;
  std::mt19937_64 random(seed);
  for (int lower = 0; lower < f.infinity(); ++lower) {
    const double a = f.value(lower), b = f.value(lower + 1);
    const auto middle = static_cast<float>((a + b) / 2);  // exact: one more bit than the format
    ASSERT_EQ(middle, (a + b) / 2);
    const float up = std::numeric_limits<float>::infinity();
    for (const float x :
         {std::nextafter(static_cast<float>(a), up), std::nextafter(middle, 0.0F), middle, std::nextafter(middle, up),
          std::nextafter(f.to_float(static_cast<std::uint16_t>(lower + 1)), 0.0F),
          static_cast<float>(a + (b - a) * static_cast<double>(random() >> 11) * 0x1p-53)}) {
      if (x < a || x > b) continue;
      ASSERT_EQ(f.to_bits(x), f.nearest(x, lower)) << x << ", seed " << seed;
      ASSERT_EQ(f.to_bits(-x), f.nearest(x, lower) | 0x8000) << -x << ", seed " << seed;
    }
  }
}

TEST_P(Numbers16, WhatIsTooLargeBecomesInfinityAndWhatIsTooSmallZero) {
  const Format& f = GetParam();
  const float largest = f.to_float(static_cast<std::uint16_t>(f.infinity() - 1));
  constexpr float most = std::numeric_limits<float>::max(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f.to_bits(largest), f.infinity() - 1);
  EXPECT_EQ(f.to_bits(infinity), f.infinity());
  EXPECT_EQ(f.to_bits(-infinity), f.infinity() | 0x8000);
  EXPECT_EQ(f.to_bits(most), f.infinity());
  EXPECT_EQ(f.to_bits(-most), f.infinity() | 0x8000);
  EXPECT_EQ(f.to_bits(0.0F), 0);
  EXPECT_EQ(f.to_bits(-0.0F), 0x8000);
  EXPECT_EQ(f.to_bits(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(f.to_bits(-std::numeric_limits<float>::denorm_min()), 0x8000);
}

TEST_P(Numbers16, EveryKindOfNaNStaysNaN) {
  const Format& f = GetParam();
  for (std::uint32_t mantissa = 1; mantissa < 0x800000; mantissa = mantissa * 3 + 1)  // payloads high and low
    for (const std::uint32_t sign : {0U, 0x80000000U}) {
      const float nan = std::bit_cast<float>(sign | 0x7f800000U | mantissa);
      EXPECT_GT(f.to_bits(nan) & 0x7fff, f.infinity()) << std::hex << mantissa;
      EXPECT_EQ(f.to_bits(nan) >> 15, sign >> 31) << std::hex << mantissa;
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, Numbers16, testing::Values(bf16, f16),
                         [](const auto& format) { return format.param.mantissa_bits == 7 ? "bf16" : "f16"; });

}  // namespace
}  // namespace annulus

#include "annulus/memory/device.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "annulus/memory/numbers16.hpp"
#include "kernel/support.hpp"

namespace annulus::test {
namespace {

constexpr DType types[]{DType::f32, DType::bf16, DType::f16, DType::f64};

/// Memory whose every piece is accounted for.
class CountingDevice final : public Device {
 public:
  ~CountingDevice() override { EXPECT_TRUE(held_.empty()) << held_.size() << " pieces were never released"; }
  Place place() const override { return Place::cpu; }
  std::string name() const override { return "counting"; }
  std::byte* allocate(Index bytes) override {
    std::byte* memory = cpu_.allocate(bytes);
    held_[memory] = bytes;
    return memory;
  }
  void release(std::byte* memory, Index bytes) noexcept override {
    EXPECT_EQ(held_.count(memory), 1U) << "released what was never allocated, or twice";
    EXPECT_EQ(held_[memory], bytes);
    held_.erase(memory);
    cpu_.release(memory, bytes);
  }
  void zero(std::byte* memory, Index bytes) override { cpu_.zero(memory, bytes); }
  void copy(std::byte* to, const std::byte* from, Index bytes) override { cpu_.copy(to, from, bytes); }
  std::size_t pieces() const { return held_.size(); }

 private:
  CpuDevice cpu_;
  std::map<std::byte*, Index> held_;
};

TEST(CpuDevice, WhatIsReleasedServesTheNextPassUnlessItIsLarge) {
  CpuDevice cpu;
  constexpr Index usual = Index{3} << 20, large = Index{65} << 20, small = 64;
  std::byte* first = cpu.allocate(usual);
  std::byte* second = cpu.allocate(usual);
  EXPECT_NE(first, second);
  cpu.release(first, usual);
  std::byte* other = cpu.allocate(usual + 4096);
  EXPECT_NE(other, first) << "pieces of another length are others";
  EXPECT_EQ(cpu.allocate(usual), first);
  for (const auto& [memory, bytes] : {std::pair{first, usual}, {second, usual}, {other, usual + 4096}})
    cpu.release(memory, bytes);
  for (const Index bytes : {large, small, Index{0}}) {
    std::byte* memory = cpu.allocate(bytes);
    if (bytes > 0) std::fill_n(memory, bytes, std::byte{1});
    cpu.release(memory, bytes);
  }
}

TEST(CpuDevice, WhatIsKeptServesALittleShorterPiecesAndTheOldestGiveWay) {
  constexpr Index megabyte = Index{1} << 20;
  CpuDevice cpu;
  std::byte* first = cpu.allocate(20 * megabyte);
  cpu.release(first, 20 * megabyte);
  std::byte* shorter = cpu.allocate(18 * megabyte);
  EXPECT_EQ(shorter, first) << "an eighth longer will do";
  cpu.release(shorter, 18 * megabyte);
  std::byte* again = cpu.allocate(20 * megabyte);
  EXPECT_EQ(again, first) << "it is as long as it was";
  cpu.release(again, 20 * megabyte);
  std::byte* half = cpu.allocate(10 * megabyte);
  EXPECT_NE(half, first) << "much too long";
  cpu.release(half, 10 * megabyte);
  std::vector<std::byte*> many;
  for (int i = 0; i < 6; ++i) many.push_back(cpu.allocate(12 * megabyte));
  for (std::byte* memory : many) cpu.release(memory, 12 * megabyte);
  EXPECT_EQ(cpu.allocate(12 * megabyte), many.back()) << "what was released last";
  cpu.release(many.back(), 12 * megabyte);
}

// Long rows, which threads share out, and short ones.
TEST(CpuDevice, ThreadsTogetherDoWhatOneDoes) {
  for (const Index tokens : {4'001, 3, 0})
    for (const int threads : {1, 2, 5}) {
      SCOPED_TRACE(sentence(tokens, " tokens, ", threads, " threads"));
      CpuDevice cpu;
      cpu.use_threads(threads);
      Sheet source(DType::f32, tokens, 2, 150, 3), target(DType::f32, tokens, 2, 150, 1), expected(target),
          rounded(DType::bf16, tokens, 2, 150, 2), expected_rounded(rounded);
      const auto value = [](Index i, Index h, Index c) { return static_cast<double>(i - 500 * h + 21 * c) / 7; };
      source.each(value);
      target.fill(1);
      expected.each(value);
      cpu.copy_rows(source, target);
      EXPECT_TRUE(target.same_bits(expected));
      add(source, expected);
      cpu.add(source, target);
      EXPECT_TRUE(target.same_bits(expected));
      convert(source, expected_rounded);
      cpu.convert(source, rounded);
      EXPECT_TRUE(rounded.same_bits(expected_rounded));
      expected.fill(0);
      cpu.clear(target);
      EXPECT_TRUE(target.same_bits(expected));
      const Sheet shorter(DType::f32, tokens + 1, 2, 150);
      EXPECT_THROW(cpu.convert(source, shorter), Error);
      EXPECT_THROW(cpu.copy_rows(source, rounded), Error);
      EXPECT_THROW(cpu.add(rounded, rounded), Error);
    }
}

TEST(Array, OwnsItsMemoryUntilItIsMovedOrEnds) {
  CountingDevice device;
  {
    Array a(device, DType::f32, 3, 2, 5);
    const std::byte* memory = a.rows().data;
    a.elements<float>()[29] = 7;
    Array b = std::move(a);
    EXPECT_EQ(device.pieces(), 1U);
    EXPECT_EQ(b.rows().data, memory);
    EXPECT_EQ(b.elements<float>()[29], 7);
    EXPECT_TRUE(a.rows().absent());  // NOLINT(bugprone-use-after-move): a moved-from array is empty
    EXPECT_TRUE(a.elements<float>().empty());
    a = Array::zeros(device, DType::f64, 1, 1, 1);
    EXPECT_EQ(device.pieces(), 2U);
    b = std::move(a);
    EXPECT_EQ(b.rows().type, DType::f64);
    EXPECT_EQ(b.elements<double>()[0], 0);
    b = Array();
    Array& same = b;
    b = std::move(same);
    EXPECT_TRUE(b.rows().absent());
  }
  EXPECT_EQ(device.pieces(), 0U);
}

TEST(Array, MemoryIsAlignedAndEmptyArraysAreFine) {
  CpuDevice cpu;
  for (const Index tokens : {0, 1, 3, 1000}) {
    const Array array = Array::zeros(cpu, DType::bf16, tokens, 1, 3);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.rows().data) % 64, 0U);
    EXPECT_TRUE(array.rows().dense());
    for (const std::uint16_t x : array.elements<std::uint16_t>()) EXPECT_EQ(x, 0);
  }
  EXPECT_THROW(Array(cpu, DType::f32, -1, 1, 1), Error);
  EXPECT_THROW(Array(cpu, DType::f32, 1, 1, -8), Error);
  try {
    const Array beyond(cpu, DType::f32, Index{1} << 40, 1 << 20, 1 << 10);  // 2^72 bytes
    FAIL() << beyond.rows().bytes();
  } catch (const Error& e) {
    EXPECT_EQ(e.failure(), Failure::fit);
  }
}

TEST(Rows, ConvertingBetweenAnyTypesIsRoundingTheValueAndLeavesTheGaps) {
  constexpr unsigned seed = 6;
  std::mt19937 random(seed);
  for (const DType from : types)
    for (const DType to : types) {
      SCOPED_TRACE(sentence(name_of(from), " to ", name_of(to), ", seed ", seed));
      Sheet source(from, 9, 2, 5, 3), target(to, 9, 2, 5, 1);
      source.fill_normal(random);
      const Sheet untouched = source;
      convert(source, target);
      EXPECT_TRUE(source.same_bits(untouched));
      Sheet expected(to, 9, 2, 5, 1);  // its gaps hold 0xff, as those of target did
      expected.each([&](Index i, Index h, Index c) { return source.at(i, h, c); });
      EXPECT_TRUE(target.same_bits(expected));
    }
}

// A float64 is rounded to 16 bits once: by way of f32, what lies a little above the middle of two numbers would first
// fall onto the middle and then to the even side.
TEST(Rows, Float64IsRoundedTo16BitsOnceNotTwice) {
  CpuDevice cpu;
  for (const DType type : {DType::bf16, DType::f16}) {
    const int mantissa = type == DType::bf16 ? 7 : 10;
    const auto converted = [&](double x) {
      const Array rounded(cpu, type, 1, 1, 1);
      convert(dense_rows(&x, DType::f64, 1, 1, 1), rounded);
      return number(rounded, 0, 0);
    };
    const double ulp = std::ldexp(1, -mantissa), middle = 1 + ulp / 2;
    EXPECT_EQ(converted(middle), 1) << "the middle goes to the even side";
    EXPECT_EQ(converted(middle + 0x1p-40), 1 + ulp) << name_of(type);
    EXPECT_EQ(converted(middle - 0x1p-40), 1) << name_of(type);
    EXPECT_EQ(converted(-middle - 0x1p-40), -1 - ulp) << name_of(type);
    EXPECT_EQ(converted(1 + ulp + ulp / 2 - 0x1p-40), 1 + ulp) << name_of(type);
    EXPECT_EQ(converted(0x1p-25 + 0x1p-60), type == DType::f16 ? 0x1p-24 : 0x1p-25) << "subnormal in f16";
    EXPECT_EQ(converted(1e300), std::numeric_limits<double>::infinity());
    EXPECT_EQ(converted(-1e300), -std::numeric_limits<double>::infinity());
    EXPECT_EQ(converted(1e-300), 0);
    EXPECT_TRUE(std::isnan(converted(std::numeric_limits<double>::quiet_NaN())));
    EXPECT_EQ(converted(std::numeric_limits<double>::infinity()), std::numeric_limits<double>::infinity());
  }
}

TEST(Rows, CopyingMovesBitsBetweenAnyPitchesAndLeavesTheGaps) {
  for (const DType type : types)
    for (const Index from_gap : {0, 3})
      for (const Index to_gap : {0, 2}) {
        Sheet source(type, 6, 2, 3, from_gap), target(type, 6, 2, 3, to_gap), expected(type, 6, 2, 3, to_gap);
        const auto value = [](Index i, Index h, Index c) { return static_cast<double>(100 * i + 10 * h + c); };
        source.each(value);
        expected.each(value);
        copy_rows(source, target);
        EXPECT_TRUE(target.same_bits(expected)) << name_of(type) << " gaps " << from_gap << ", " << to_gap;
      }
}

TEST(Rows, AddingAndClearingLeaveTheGaps) {
  for (const DType type : {DType::f32, DType::f64}) {
    Sheet a(type, 5, 2, 3, 2), b(type, 5, 2, 3, 1), sum(type, 5, 2, 3, 1), zero(type, 5, 2, 3, 1);
    a.each([](Index i, Index h, Index c) { return static_cast<double>(i - 2 * h + c); });
    b.fill(10);
    sum.each([](Index i, Index h, Index c) { return static_cast<double>(10 + i - 2 * h + c); });
    zero.fill(0);
    add(a, b);
    EXPECT_TRUE(b.same_bits(sum));
    clear(b);
    EXPECT_TRUE(b.same_bits(zero));
  }
}

TEST(Rows, WhatDoesNotMatchIsRefused) {
  const Sheet a(DType::f32, 3, 2, 4), shorter(DType::f32, 2, 2, 4), other(DType::f32, 3, 4, 2),
      half(DType::bf16, 3, 2, 4);
  EXPECT_THROW(convert(a, shorter), Error);
  EXPECT_THROW(convert(a, other), Error);
  EXPECT_THROW(copy_rows(a, half), Error);
  EXPECT_THROW(copy_rows(a, other), Error);
  EXPECT_THROW(add(a, shorter), Error);
  EXPECT_THROW(add(half, half), Error);
}

TEST(Rows, SlicesAndHeadsAreViewsOfTheSameElements) {
  Sheet sheet(DType::f16, 6, 3, 2, 1);
  sheet.each([](Index i, Index h, Index c) { return static_cast<double>(100 * i + 10 * h + c); });
  const Rows part = sheet.rows().slice(2, 5).take_heads(1, 3);
  EXPECT_EQ(part.tokens, 3);
  EXPECT_EQ(part.heads, 2);
  for (Index i = 0; i < 3; ++i)
    for (Index h = 0; h < 2; ++h)
      for (Index c = 0; c < 2; ++c)
        EXPECT_EQ(number(part, i, h, c), static_cast<double>(100 * (i + 2) + 10 * (h + 1) + c));
}

}  // namespace
}  // namespace annulus::test

#include <gtest/gtest.h>

#include "kernel/support.hpp"

// The laws of merging, for f32 and f64 partials of random rows, some of which have seen nothing.

namespace annulus::test {
namespace {

constexpr Index rows = 40, heads = 2, channels = 5;

class PartialLaws : public testing::TestWithParam<DType> {
 protected:
  // Rows whose number is a multiple of `empty` have seen nothing, and what they hold has no meaning; tops wander by `spread`.
  PartialSheets random_partial(unsigned seed, Index empty, double spread = 3) const {
    PartialSheets p(GetParam(), rows, heads, channels, 2);
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, 1);
    for (Index i = 0; i < rows; ++i)
      for (Index h = 0; h < heads; ++h) {
        if (i % empty == 0) {
          for (Index c = 0; c < channels; ++c) p.out.set(i, h, c, std::numeric_limits<double>::quiet_NaN());
          continue;
        }
        p.top.set(i, h, 0, spread * normal(random));
        p.sum.set(i, h, 0, 0.5 + std::abs(normal(random)));
        for (Index c = 0; c < channels; ++c) p.out.set(i, h, c, normal(random));
      }
    return p;
  }
  // A few roundings of numbers of size 1, relative.
  double bound() const { return GetParam() == DType::f32 ? 16 * 0x1p-24 : 16 * 0x1p-53; }

  void expect_same_attention(PartialSheets a, PartialSheets b) const {
    Sheet a_lse(GetParam(), rows, heads, 1), b_lse(a_lse);
    finish(a.view(), a_lse);
    finish(b.view(), b_lse);
    for (Index i = 0; i < rows; ++i)
      for (Index h = 0; h < heads; ++h) {
        if (a_lse.at(i, h) == minus_infinity) {
          EXPECT_EQ(b_lse.at(i, h), minus_infinity);
        } else {
          EXPECT_NEAR(a_lse.at(i, h), b_lse.at(i, h), bound() * (1 + std::abs(a_lse.at(i, h))));
        }
        for (Index c = 0; c < channels; ++c)
          EXPECT_NEAR(a.out.at(i, h, c), b.out.at(i, h, c), 4 * bound() * (1 + std::abs(a.out.at(i, h, c))));
      }
  }
};

TEST_P(PartialLaws, MergingIsAssociative) {
  const PartialSheets a = random_partial(1, 3), b = random_partial(2, 4), c = random_partial(3, 5);
  PartialSheets left = b, right = c;
  merge(a.view(), left.view());  // (a b) c
  merge(c.view(), left.view());
  merge(b.view(), right.view());  // a (b c)
  merge(a.view(), right.view());
  expect_same_attention(left, right);
}

TEST_P(PartialLaws, MergingIsCommutative) {
  const PartialSheets a = random_partial(4, 3), b = random_partial(5, 4);
  PartialSheets ab = b, ba = a;
  merge(a.view(), ab.view());
  merge(b.view(), ba.view());
  expect_same_attention(ab, ba);
}

TEST_P(PartialLaws, MergingWithNothingChangesNothing) {
  const PartialSheets nothing(GetParam(), rows, heads, channels, 2);
  PartialSheets a = random_partial(6, 3), into = a, fresh(GetParam(), rows, heads, channels, 2);
  merge(nothing.view(), into.view());
  EXPECT_TRUE(into.same_bits(a));
  merge(a.view(), fresh.view());
  for (PartialSheets* p : {&a, &fresh}) finish(p->view(), p->view().top);  // what empty rows held has no meaning
  EXPECT_TRUE(fresh.same_bits(a));
}

TEST_P(PartialLaws, NothingMergedWithNothingIsNothing) {
  const PartialSheets a(GetParam(), rows, heads, channels), identity = a;
  PartialSheets b = a;
  merge(a.view(), b.view());
  EXPECT_TRUE(b.same_bits(identity));
}

TEST_P(PartialLaws, AJumpOfAThousandLeavesOnlyTheLargerSide) {
  const PartialSheets small = random_partial(7, 100, 0);
  PartialSheets large = random_partial(8, 100, 0);
  for (Index i = 0; i < rows; ++i)
    for (Index h = 0; h < heads; ++h)
      if (i > 0) large.top.set(i, h, 0, 1000);
  PartialSheets up = small, down = large;
  merge(large.view(), up.view());
  merge(small.view(), down.view());
  for (Index i = 1; i < rows; ++i)
    for (Index c = 0; c < channels; ++c) {
      EXPECT_EQ(up.out.at(i, 0, c), large.out.at(i, 0, c));
      EXPECT_EQ(down.out.at(i, 0, c), large.out.at(i, 0, c));
    }
}

// All scores of a row may be infinities that cancel: then it has a sum that is not a number, and no top.
TEST_P(PartialLaws, ASumThatIsNotANumberShowsOnWhicheverSideItIs) {
  PartialSheets bad(GetParam(), rows, heads, channels);
  bad.sum.fill(std::numeric_limits<double>::quiet_NaN());
  for (const PartialSheets& other : {random_partial(9, 1, 0), PartialSheets(GetParam(), rows, heads, channels)}) {
    PartialSheets into = other, from = bad;
    merge(bad.view(), into.view());
    merge(other.view(), from.view());
    for (PartialSheets* merged : {&into, &from}) {
      finish(merged->view(), merged->top);
      EXPECT_TRUE(std::isnan(merged->top.at(1, 0)));
      EXPECT_TRUE(std::isnan(merged->out.at(1, 0, 0)));
    }
  }
}

TEST_P(PartialLaws, FinishingTheIdentityGivesZeroAndMinusInfinity) {
  PartialSheets identity(GetParam(), rows, heads, channels);
  finish(identity.view(), identity.top);
  for (Index i = 0; i < rows; ++i) {
    EXPECT_EQ(identity.out.at(i, 1, 2), 0);
    EXPECT_EQ(identity.top.at(i, 1), minus_infinity);
  }
}

TEST_P(PartialLaws, ShapesMustMatch) {
  const PartialSheets a(GetParam(), rows, heads, channels), b(GetParam(), rows, heads, channels + 1);
  EXPECT_THROW(merge(a.view(), b.view()), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, PartialLaws, testing::Values(DType::f32, DType::f64),
                         [](const auto& type) { return std::string(name_of(type.param)); });

TEST(RowDot, IsTheSumOverChannelsInEveryType) {
  std::mt19937 random(9);
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    Sheet dout(type, 7, 2, 11, 3), out(DType::f32, 7, 2, 11, 1), delta(DType::f32, 7, 2, 1, 2);
    dout.fill_normal(random);
    out.fill_normal(random);
    row_dot(dout, out, delta);
    for (Index i = 0; i < 7; ++i) {
      double dot = 0;
      for (Index c = 0; c < 11; ++c) dot += dout.at(i, 1, c) * out.at(i, 1, c);
      EXPECT_NEAR(delta.at(i, 1), dot, 0x1p-24 * std::abs(dot));
    }
  }
}

}  // namespace
}  // namespace annulus::test

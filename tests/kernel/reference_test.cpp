#include <gtest/gtest.h>

#include "kernel/support.hpp"

// The judge is judged: its gradients against central differences of its own forward pass, its forward pass against sums
// that are known.

namespace annulus::test {
namespace {

struct Small {
  Small()
      : in({.query_heads = 3,
            .kv_heads = 2,
            .channels = 4,
            .value_channels = 3,
            .group = 2,
            .phase = 1,
            .type = DType::f64,
            .softmax_scale = 0.6},
           6, 7, 31),
        kernel(make_reference_kernel(in.problem)),
        tiles{tile({0, 6}, {0, 4}, {-far, 1}), tile({2, 6}, {4, 7})} {}

  PartialSheets forward(const Rows& lse) const {
    PartialSheets partial(DType::f64, 6, 3, 3);
    kernel->forward(tiles, in.q, {in.k, in.v}, partial.view());
    finish(partial.view(), lse);
    return partial;
  }
  /// L = sum of dout * out.
  double loss() const {
    const Sheet lse(DType::f64, 6, 3, 1);
    const PartialSheets partial = forward(lse);
    double sum = 0;
    for (Index i = 0; i < 6; ++i)
      for (Index h = 0; h < 3; ++h)
        for (Index c = 0; c < 3; ++c) sum += in.dout.at(i, h, c) * partial.out.at(i, h, c);
    return sum;
  }
  Inputs in;
  std::unique_ptr<Kernel> kernel;
  std::vector<Tile> tiles;
};

TEST(Reference, GradientsAreTheSlopesOfTheLoss) {
  Small small;
  const Sheet lse(DType::f64, 6, 3, 1), delta(DType::f64, 6, 3, 1);
  const PartialSheets partial = small.forward(lse);
  row_dot(small.in.dout, partial.out, delta);
  Sheet dq(DType::f64, 6, 3, 4), dk(DType::f64, 7, 2, 4), dv(DType::f64, 7, 2, 3);
  for (Sheet* sheet : {&dq, &dk, &dv}) sheet->fill(0);
  small.kernel->backward(small.tiles, {small.in.q, small.in.dout, lse, delta}, {small.in.k, small.in.v}, {dq, dk, dv});
  const auto expect_slopes = [&](Sheet& input, const Sheet& gradient) {
    const Rows& rows = input.rows();
    constexpr double step = 1e-5;  // error about step^2 + 1e-16 / step = 1e-10
    for (Index i = 0; i < rows.tokens; ++i)
      for (Index h = 0; h < rows.heads; ++h)
        for (Index c = 0; c < rows.channels; ++c) {
          const double before = input.at(i, h, c);
          input.set(i, h, c, before + step);
          const double up = small.loss();
          input.set(i, h, c, before - step);
          const double down = small.loss();
          input.set(i, h, c, before);
          EXPECT_NEAR(gradient.at(i, h, c), (up - down) / (2 * step), 1e-8) << i << " " << h << " " << c;
        }
  };
  expect_slopes(small.in.q, dq);
  expect_slopes(small.in.k, dk);
  expect_slopes(small.in.v, dv);
}

TEST(Reference, EqualScoresGiveTheMeanOfTheVisibleValues) {
  Inputs in({.channels = 2, .value_channels = 1, .type = DType::f64}, 4, 4, 32);
  in.q.fill(0);
  in.v.each([](Index j, Index, Index) { return static_cast<double>(j); });
  PartialSheets partial(DType::f64, 4, 1, 1);
  const Sheet lse(DType::f64, 4, 1, 1);
  const std::vector<Tile> causal{tile({0, 4}, {0, 4}, {-far, 0})};
  make_reference_kernel(in.problem)->forward(causal, in.q, {in.k, in.v}, partial.view());
  finish(partial.view(), lse);
  for (Index i = 0; i < 4; ++i) {
    EXPECT_NEAR(partial.out.at(i, 0), static_cast<double>(i) / 2, 1e-15);
    EXPECT_NEAR(lse.at(i, 0), std::log(static_cast<double>(i + 1)), 1e-15);
  }
}

TEST(Reference, EqualScoresAreListedBySmallerKeyInEveryType) {
  Inputs in({.channels = 7, .value_channels = 1, .type = DType::f64}, 3, 12, 33);  // scores that f32 rounds
  in.k.each([&](Index, Index h, Index c) { return in.k.at(0, h, c); });
  const std::vector<Tile> halves{tile({0, 3}, {6, 12}), tile({0, 3}, {0, 6})};
  const Sheet lse(DType::f64, 3, 1, 1);
  for (const DType type : {DType::f32, DType::f64}) {
    Sheet top(type, 3, 1, 5);
    std::vector<Index> index(15, -1);
    top.fill(minus_infinity);
    Observation observation;
    observation.top_score = top;
    observation.top_index = index;
    make_reference_kernel(in.problem)->observe(halves, in.q, in.k, lse, observation);
    for (Index n = 0; n < 15; ++n) EXPECT_EQ(index[static_cast<std::size_t>(n)], n % 5) << name_of(type);
  }
}

}  // namespace
}  // namespace annulus::test

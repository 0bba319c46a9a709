#include "model/checkpoint/token_work.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

namespace annulus {
namespace {

constexpr double epsilon = 0x1p-24;

std::vector<float> random_numbers(std::size_t count, float size, std::uint64_t seed) {
  std::mt19937_64 source(seed);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> numbers(count);
  for (float& x : numbers) x = normal(source);
  return numbers;
}

TEST(Normalise, IsWhatItsFormulaSays) {
  for (const bool centred : {false, true})
    for (const std::size_t width : {1U, 7U, 64U, 2049U}) {
      const auto x = random_numbers(3 * width, 5, width);
      NormWeights weights{random_numbers(width, 1, 2), {}};
      if (centred) weights.shift = random_numbers(width, 1, 3);
      std::vector<float> y(x.size());
      const NormRule rule{centred ? TransformerShape::Norm::mean_and_variance : TransformerShape::Norm::rms, 1e-5};
      normalise(rule, weights, static_cast<Index>(width), x, y);
      for (std::size_t row = 0; row < 3; ++row) {
        double mean = 0, squares = 0;
        for (std::size_t c = 0; centred && c < width; ++c) mean += x[row * width + c] / static_cast<double>(width);
        for (std::size_t c = 0; c < width; ++c)
          squares += std::pow(x[row * width + c] - mean, 2) / static_cast<double>(width);
        for (std::size_t c = 0; c < width; ++c) {
          const double exact = (x[row * width + c] - mean) / std::sqrt(squares + 1e-5) * weights.scale[c] +
                               (centred ? weights.shift[c] : 0.0F);
          // Four roundings, and the mean's, which is of numbers up to some standard deviations.
          EXPECT_NEAR(y[row * width + c], exact, 16 * epsilon * (1 + std::abs(exact)) * 5) << width << " " << c;
        }
      }
    }
}

TEST(Normalise, WeighsHeadsAlikeOrEachForItself) {
  const std::vector<float> x{3, 4, 6, 8};
  std::vector<float> y(4);
  normalise({TransformerShape::Norm::rms, 0}, {{1, 2}, {}}, 2, x, y);
  const float rms = std::sqrt(12.5F);
  EXPECT_NEAR(y[1], 2 * 4 / rms, 1e-6);
  EXPECT_NEAR(y[3], 2 * 4 / rms, 1e-6);
  normalise({TransformerShape::Norm::rms, 0}, {{1, 2, 3, 4}, {}}, 2, x, y);
  EXPECT_NEAR(y[3], 4 * 4 / rms, 1e-6);
}

TEST(Rotate, KeepsLengthsAndDependsOnDistancesAlone) {
  const Rotary rotary{{1, 0.1, 0.01}, 1};
  const auto q = random_numbers(8, 1, 5), k = random_numbers(8, 1, 6);
  const auto score = [&](Index i, Index j) {
    auto a = q, b = k;
    rotate(rotary, i, 8, a);
    rotate(rotary, j, 8, b);
    EXPECT_EQ(a[6], q[6]);  // of 8 channels 6 are turned
    double sum = 0;
    for (std::size_t c = 0; c < 8; ++c) sum += static_cast<double>(a[c]) * b[c];
    return sum;
  };
  EXPECT_NEAR(score(5, 2), score(1'000'005, 1'000'002), 1e-5);
  EXPECT_GT(std::abs(score(5, 2) - score(5, 3)), 1e-4);
  auto heads = random_numbers(16, 1, 7);
  const auto before = heads;
  rotate(Rotary{}, 9, 8, heads);
  EXPECT_EQ(heads, before);
}

TEST(Activate, IsWhatItsNameSays) {
  using enum TransformerShape::Activation;
  std::vector<float> x;
  for (float v = -120; v <= 120; v += 0.37F) x.push_back(v);
  const auto exact = [](TransformerShape::Activation kind, double v) {
    switch (kind) {
      case silu:
        return v / (1 + std::exp(-v));
      case gelu:
        return 0.5 * v * std::erfc(-v / std::numbers::sqrt2);
      case gelu_tanh:
        return 0.5 * v * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v)));
      case relu:
        return std::max(v, 0.0);
    }
    return 0.0;
  };
  for (const auto kind : {silu, gelu, gelu_tanh, relu}) {
    std::vector<float> alone = x, gated(x.size(), 3);
    activate(kind, {}, alone);
    activate(kind, x, gated);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(alone[i], exact(kind, x[i]), 8 * epsilon * (1 + std::abs(x[i]))) << x[i];
      EXPECT_NEAR(gated[i], 3 * exact(kind, x[i]), 24 * epsilon * (1 + std::abs(x[i]))) << x[i];
    }
  }
}

TEST(Logits, MetInPiecesAreThoseOfOneSoftmax) {
  for (const float size : {0.1F, 10.0F, 300.0F})
    for (const float cap : {0.0F, 30.0F}) {
      const auto all = random_numbers(1000, size, 11);
      std::vector<double> x(all.begin(), all.end());
      if (cap > 0)
        for (double& value : x) value = cap * std::tanh(value / cap);
      const auto best = std::ranges::max_element(x);
      double sum = 0, weighted = 0;
      for (const double value : x) sum += std::exp(value - *best);
      for (const double value : x) weighted += std::exp(value - *best) / sum * (value - *best);
      LogitState state = no_logits();
      for (std::size_t from = 0; from < all.size(); from += 333) {
        const auto count = std::min<std::size_t>(333, all.size() - from);
        std::vector<float> piece(all.begin() + static_cast<std::ptrdiff_t>(from),
                                 all.begin() + static_cast<std::ptrdiff_t>(from + count));
        meet_logits(state, piece, static_cast<Index>(from), 500, cap);
      }
      const double bound = 1e-6 + 4 * epsilon * std::abs(*best);
      if (cap == 0) {
        EXPECT_EQ(state.best, best - x.begin());  // many are as large as the cap
      }
      EXPECT_NEAR(state.wanted, x[500], bound);
      EXPECT_NEAR(std::log(state.sum) + state.top, std::log(sum) + *best, bound);
      EXPECT_NEAR(std::log(state.sum) - state.weighted / state.sum, std::log(sum) - weighted, 1e-5 + 4 * bound);
    }
}

}  // namespace
}  // namespace annulus

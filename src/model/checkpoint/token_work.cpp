#include "model/checkpoint/token_work.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

namespace annulus {
namespace {

constexpr std::size_t lanes = 16;  // partial sums, so that the compiler can use vectors

// Sums of terms of each x, as many as term(x) has; f32 sums of at most 64 numbers each.
template <std::size_t count, class Term>
std::array<double, count> sums_of(std::span<const float> x, const Term& term) {
  std::array<double, count> totals{};
  std::size_t i = 0;
  while (i + lanes <= x.size()) {
    std::array<std::array<float, lanes>, count> sums{};
    for (const std::size_t end = std::min(x.size() - lanes + 1, i + 64 * lanes); i < end; i += lanes)
      for (std::size_t n = 0; n < lanes; ++n) {
        const std::array<float, count> terms = term(x[i + n]);
        for (std::size_t t = 0; t < count; ++t) sums[t][n] += terms[t];
      }
    for (std::size_t t = 0; t < count; ++t)
      for (const float sum : sums[t]) totals[t] += sum;
  }
  for (; i < x.size(); ++i) {
    const std::array<float, count> terms = term(x[i]);
    for (std::size_t t = 0; t < count; ++t) totals[t] += terms[t];
  }
  return totals;
}

template <class Term>
double sum_of(std::span<const float> x, const Term& term) {
  return sums_of<1>(x, [&](float v) { return std::array{term(v)}; })[0];
}

float largest_of(std::span<const float> x) {
  std::array<float, lanes> tops{};
  tops.fill(-std::numeric_limits<float>::infinity());
  std::size_t i = 0;
  for (; i + lanes <= x.size(); i += lanes)
    for (std::size_t n = 0; n < lanes; ++n) tops[n] = std::max(tops[n], x[i + n]);
  float top = *std::ranges::max_element(tops);
  for (; i < x.size(); ++i) top = std::max(top, x[i]);
  return top;
}

// exp(x) to 2 units in the last place where it is a normal number, else less than 2^-125; x <= 88. Without a branch or a call, so that
// the compiler can use vectors on any processor.
inline float quick_exp(float x) {
  constexpr float round = 0x1.8p23F;  // a number added to this is rounded to a whole one, which its last bits are
  const float clipped = std::max(x, -87.0F), turned = clipped * std::numbers::log2e_v<float> + round;
  const float n = turned - round;
  const float r = (clipped - n * 0.693359375F) + n * 2.12194440e-4F;  // ln 2 in two parts, of which the first is exact
  float p = 1.0F / 5040;
  for (const float factor : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) p = p * r + factor;
  return p * std::bit_cast<float>((std::bit_cast<std::int32_t>(turned) + 127) << 23);
}

// x / (1 + exp(-x)); where exp is cut the quotient is smaller than any normal number.
inline float silu(float x) { return x / (1 + quick_exp(std::min(-x, 87.0F))); }

inline float gelu(float x) { return 0.5F * x * (1 + std::erf(x * std::numbers::sqrt2_v<float> * 0.5F)); }

// 0.5 x (1 + tanh u) = x / (1 + exp(-2 u)),  u = sqrt(2 / pi) (x + 0.044715 x^3).
inline float gelu_tanh(float x) {
  constexpr float twice = 2 * 0.7978845608F;
  return x / (1 + quick_exp(std::min(-twice * (x + 0.044715F * x * x * x), 87.0F)));
}

template <class Function>
void apply(std::span<const float> gate, std::span<float> up, const Function& function) {
  if (gate.empty()) {
    for (float& x : up) x = function(x);
  } else {
    for (std::size_t i = 0; i < up.size(); ++i) up[i] *= function(gate[i]);
  }
}

}  // namespace

void normalise(const NormRule& rule, const NormWeights& weights, Index channels, std::span<const float> x,
               std::span<float> y) {
  const auto width = static_cast<std::size_t>(channels);
  std::size_t w = 0;
  for (std::size_t at = 0; at < x.size(); at += width, w += width) {
    if (w == weights.scale.size()) w = 0;
    const auto row = x.subspan(at, width);
    const bool centred = rule.norm == TransformerShape::Norm::mean_and_variance;
    const auto mean =
        static_cast<float>(centred ? sum_of(row, [](float v) { return v; }) / static_cast<double>(width) : 0.0);
    const double squares = sum_of(row, [mean](float v) { return (v - mean) * (v - mean); });
    const auto factor = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(width) + rule.epsilon));
    for (std::size_t c = 0; c < width; ++c) y[at + c] = (row[c] - mean) * factor * weights.scale[w + c];
    if (!weights.shift.empty())
      for (std::size_t c = 0; c < width; ++c) y[at + c] += weights.shift[w + c];
  }
}

void rotate(const Rotary& rotary, Index position, Index channels, std::span<float> heads) {
  const std::size_t half = rotary.frequencies.size();
  if (half == 0) return;
  std::vector<float> turns(2 * half);
  float *cosine = turns.data(), *sine = turns.data() + half;
  for (std::size_t c = 0; c < half; ++c) {
    const double angle = static_cast<double>(position) * rotary.frequencies[c];
    cosine[c] = static_cast<float>(rotary.amplitude * std::cos(angle));
    sine[c] = static_cast<float>(rotary.amplitude * std::sin(angle));
  }
  for (std::size_t head = 0; head < heads.size(); head += static_cast<std::size_t>(channels)) {
    float *a = heads.data() + head, *b = a + half;
    for (std::size_t c = 0; c < half; ++c) {
      const float x = a[c], y = b[c];
      a[c] = x * cosine[c] - y * sine[c];
      b[c] = y * cosine[c] + x * sine[c];
    }
  }
}

void activate(TransformerShape::Activation activation, std::span<const float> gate, std::span<float> up) {
  using enum TransformerShape::Activation;
  switch (activation) {
    case silu:
      return apply(gate, up, [](float x) { return annulus::silu(x); });
    case gelu:
      return apply(gate, up, [](float x) { return annulus::gelu(x); });
    case gelu_tanh:
      return apply(gate, up, [](float x) { return annulus::gelu_tanh(x); });
    case relu:
      return apply(gate, up, [](float x) { return std::max(x, 0.0F); });
  }
}

LogitState no_logits() {
  constexpr float none = -std::numeric_limits<float>::infinity();
  return {none, 0, 0, -1, std::numeric_limits<float>::quiet_NaN()};
}

void meet_logits(LogitState& state, std::span<float> logits, Index first, Index next, float cap) {
  if (logits.empty()) return;
  if (cap > 0)
    for (float& x : logits) x = cap * std::tanh(x / cap);
  const float best = largest_of(logits);
  const auto count = static_cast<Index>(logits.size());
  if (next >= first && next < first + count) state.wanted = logits[static_cast<std::size_t>(next - first)];
  if (best > state.top) {
    const double drop = static_cast<double>(state.top) - best, keep = state.best < 0 ? 0.0 : std::exp(drop);
    state.weighted = state.best < 0 ? 0.0 : keep * (state.weighted + state.sum * drop);
    state.sum *= keep;
    state.top = best;
    state.best = first + (std::ranges::find(logits, best) - logits.begin());
  }
  const float top = state.top;
  const auto sums = sums_of<2>(logits, [top](float x) {
    const float below = std::max(x - top, -87.0F), p = quick_exp(below);
    return std::array{p, p * below};
  });
  state.sum += sums[0];
  state.weighted += sums[1];
}

}  // namespace annulus

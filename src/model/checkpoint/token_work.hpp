#pragma once
#include <span>
#include <vector>

#include "annulus/model/transformer.hpp"

namespace annulus {

/// The weight and, where there is one, the bias of a norm.
struct NormWeights {
  std::vector<float> scale, shift;
};

/// Each row of x [rows, channels] into y, which may be x: (x - mean) / sqrt(variance + epsilon), or x / sqrt(mean square + epsilon).
/// Rows may be heads of a token. scale: channels numbers, or those of several rows one after another.
struct NormRule {
  TransformerShape::Norm norm = TransformerShape::Norm::rms;
  double epsilon = 1e-6;
};
void normalise(const NormRule& rule, const NormWeights& weights, Index channels, std::span<const float> x,
               std::span<float> y);

/// Turns the heads [heads, channels] of one token as rotary positions say.
void rotate(const Rotary& rotary, Index position, Index channels, std::span<float> heads);

/// up = activation(gate) up, or activation(up) where there is no gate.
void activate(TransformerShape::Activation activation, std::span<const float> gate, std::span<float> up);

/// The logits met so far of one row: log sum exp, the most likely id, the logit of the one that follows, and what entropy needs.
struct LogitState {
  float top;
  double sum, weighted;  ///< sums of exp(x - top), and of that times (x - top)
  Index best;
  float wanted;
};
LogitState no_logits();
/// logits: of the ids from `first` on, changed where there is a cap. next: as read_out has it.
void meet_logits(LogitState& state, std::span<float> logits, Index first, Index next, float cap);

}  // namespace annulus

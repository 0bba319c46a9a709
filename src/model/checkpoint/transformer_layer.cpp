#include <algorithm>
#include <optional>

#include "model/checkpoint/transformer_state.hpp"

namespace annulus {

void Transformer::project(Index layer, const Rows& residual, std::span<const Index> positions, const Rows& q,
                          const Rows& k, const Rows& v) {
  if (residual.tokens == 0) return;
  State& m = *state_;
  const TransformerShape& s = m.shape;
  const LayerTensors& t = m.tensors.layer[static_cast<std::size_t>(layer)];
  const Rotary& rotary = s.rotaries[s.layer[static_cast<std::size_t>(layer)].rotary];
  struct Projection {
    const Linear* linear;
    const Rows* into;
    const std::string* norm;
    bool turned;
    Weights ready;
    NormWeights weights;
  };
  static const std::string none;
  std::vector<Projection> projections;
  const auto add = [&](const Linear& linear, const Rows& into, const std::string& norm, bool turned) {
    if (!into.absent()) projections.push_back({&linear, &into, &norm, turned, m.ready(linear), {}});
  };
  add(t.q, q, t.q_norm, true);
  add(t.k, k, t.k_norm, true);
  add(t.v, v, none, false);
  double operations = 0;
  for (Projection& p : projections) {
    operations += operations_of(*p.linear);
    if (!p.norm->empty()) p.weights = m.norm(*p.norm, m.head_norm_channels(t, p.into->heads));
  }
  std::vector<float> normal, product;
  m.in_portions(residual.tokens, operations, [&](Range rows) {
    const std::span<float> x = part(normal, rows.count() * s.channels);
    m.normalised(t.before_attention, floats(residual, rows), x);
    for (const Projection& p : projections) {
      const std::span<float> y = part(product, rows.count() * p.linear->outputs);
      m.apply(p.ready, x, y);
      m.each_row(y, p.linear->outputs, [&](Index row, std::span<float> heads) {
        const Index at = rows.begin + row;
        if (!p.norm->empty())
          normalise(m.rule(), p.weights, t.norm_all_heads ? p.linear->outputs : s.head_channels, heads, heads);
        if (p.turned) rotate(rotary, positions[static_cast<std::size_t>(at)], s.head_channels, heads);
        convert(dense_rows(heads.data(), DType::f32, 1, p.into->heads, s.head_channels), p.into->slice(at, at + 1));
      });
    }
  });
}

void Transformer::absorb(Index layer, const Rows& attention, const Rows& residual, const Rows& mlp) {
  if (residual.tokens == 0) return;
  State& m = *state_;
  const TransformerShape& s = m.shape;
  const LayerTensors& t = m.tensors.layer[static_cast<std::size_t>(layer)];
  const Weights out = m.ready(t.out), up = m.ready(t.up), down = m.ready(t.down);
  const bool gated = !t.gate.parts.empty();
  std::optional<Weights> gate;
  if (gated) gate.emplace(m.ready(t.gate));
  double operations = 0;
  for (const Linear* linear : {&t.out, &t.gate, &t.up, &t.down}) operations += operations_of(*linear);
  std::vector<float> normal, product, weighed, inner;
  m.in_portions(residual.tokens, operations, [&](Range rows) {
    const std::span<float> stream = floats(residual, rows);
    const std::span<float> x = part(normal, rows.count() * s.channels), y = part(product, rows.count() * s.channels);
    const auto add = [&](const std::string& norm) {
      m.normalised(norm, y, y);
      m.each_row(stream, s.channels, [&](Index row, std::span<float> into) {
        const float* more = y.data() + row * s.channels;
        for (std::size_t c = 0; c < into.size(); ++c) into[c] += more[c];
      });
    };
    if (s.parallel) m.normalised(t.before_mlp, stream, x);
    m.apply(out, floats(attention, rows), y);
    add(t.after_attention);
    if (!s.parallel) m.normalised(t.before_mlp, stream, x);
    const std::span<float> hidden = part(inner, rows.count() * s.hidden);
    const std::span<float> gates = gated ? part(weighed, rows.count() * s.hidden) : std::span<float>{};
    m.apply(up, x, hidden);
    if (gated) m.apply(*gate, x, gates);
    m.each_row(hidden, s.hidden, [&](Index row, std::span<float> into) {
      const std::span<const float> by =
          gated ? gates.subspan(static_cast<std::size_t>(row * s.hidden), into.size()) : std::span<float>{};
      activate(s.activation, by, into);
    });
    m.apply(down, hidden, y);
    add(t.after_mlp);
    if (!mlp.absent()) std::ranges::copy(y, floats(mlp, rows).begin());
  });
}

}  // namespace annulus

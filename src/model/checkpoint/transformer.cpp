#include "annulus/model/transformer.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numbers>

#include "model/checkpoint/transformer_state.hpp"

namespace annulus {

Transformer::Transformer(const std::string& folder, const TransformerShape& shape, DType type, int threads)
    : state_(std::make_unique<State>(folder, shape, type, threads)) {}

Transformer::~Transformer() = default;

void Transformer::tell(Worked worked) { state_->worked = std::move(worked); }

std::vector<std::string> Transformer::files() const {
  std::vector<std::string> all{state_->folder + "/config.json"};
  const std::string index = state_->folder + "/model.safetensors.index.json";
  if (std::error_code unknown; std::filesystem::exists(index, unknown)) all.push_back(index);
  all.insert(all.end(), state_->checkpoint.files().begin(), state_->checkpoint.files().end());
  return all;
}

bool Transformer::predicts() const { return state_->shape.causal && !state_->tensors.read_out.empty(); }

Index Transformer::weight_bytes() const { return state_->checkpoint.bytes(); }

Index Transformer::working_bytes(Index rows) const {
  const TransformerShape& s = state_->shape;
  const Index portion = std::min(rows, rows_at_a_time), element = bytes_of(state_->products.type());
  const Index q = s.query_heads * s.head_channels, kv = s.kv_heads * s.head_channels;
  const Index attention = s.channels * (q + 2 * kv), mlp = s.channels * (q + 3 * s.hidden);
  return std::max(attention, mlp) * element + portion * (2 * s.channels + std::max(q, 2 * s.hidden)) * 4 +
         2 * logits_at_a_time * 4;
}

double Transformer::layer_operations() const {
  const LayerTensors& t = state_->tensors.layer.front();
  double sum = 0;
  for (const Linear* linear : {&t.q, &t.k, &t.v, &t.out, &t.gate, &t.up, &t.down}) sum += operations_of(*linear);
  return sum;
}

double Transformer::read_out_operations() const {
  const TransformerShape& s = state_->shape;
  return predicts() ? 2.0 * static_cast<double>(s.channels) * static_cast<double>(s.vocabulary) : 0;
}

void Transformer::embed(std::span<const std::uint32_t> ids, std::span<const Index> positions,
                        const Rows& residual) const {
  const State& m = *state_;
  const TransformerShape& s = m.shape;
  const Tensor& table = m.tensor(m.tensors.embedding + ".weight", {s.vocabulary, s.channels});
  const Tensor* places =
      s.learned_positions ? &m.tensor(m.tensors.positions + ".weight", {s.positions, s.channels}) : nullptr;
  const auto look_up = [&](const Tensor& from, Index row, std::span<float> into) {
    auto* bytes = const_cast<std::byte*>(from.bytes.data()) + row * s.channels * bytes_of(from.type);  // only read
    convert(dense_rows(bytes, from.type, 1, 1, s.channels), dense_rows(into.data(), DType::f32, 1, 1, s.channels));
  };
  for (std::size_t n = 0; n < ids.size(); ++n) {
    require(static_cast<Index>(ids[n]) < s.vocabulary, "ids of tokens must be below the model's vocabulary of ",
            s.vocabulary, ": one is ", ids[n]);
    require(!s.learned_positions || positions[n] < s.positions, "this model knows ", s.positions,
            " positions, and a document has more tokens");
  }
  const std::span<float> all = floats(residual, {0, residual.tokens});
  const auto scale = static_cast<float>(s.embedding_scale);
  m.each_row(all, s.channels, [&](Index row, std::span<float> into) {
    look_up(table, static_cast<Index>(ids[static_cast<std::size_t>(row)]), into);
    for (float& x : into) x *= scale;
    if (places == nullptr) return;
    std::vector<float> place(into.size());
    look_up(*places, positions[static_cast<std::size_t>(row)], place);
    for (std::size_t c = 0; c < into.size(); ++c) into[c] += place[c];
  });
  m.normalised(m.tensors.embedding_norm, all, all);
}

NextTokens Transformer::read_out(const Rows& residual, std::span<const Index> next) {
  if (residual.tokens == 0) return {};
  State& m = *state_;
  const TransformerShape& s = m.shape;
  const std::span<float> all = floats(residual, {0, residual.tokens});
  m.normalised(m.tensors.final_norm, all, all);
  const Linear read_out{{{m.tensors.read_out, s.vocabulary, {0, s.vocabulary}}}, s.channels, s.vocabulary};
  std::vector<LogitState> states(static_cast<std::size_t>(residual.tokens), no_logits());
  const Index panel = std::max<Index>(1, logits_at_a_time / rows_at_a_time);
  std::vector<float> logits;
  for (Index first = 0; first < s.vocabulary; first += panel) {
    const Range ids{first, std::min(first + panel, s.vocabulary)};
    Linear some = read_out;
    some.parts.front().taken = ids;
    some.outputs = ids.count();
    const Weights w = m.ready(some);
    m.in_portions(residual.tokens, operations_of(some), [&](Range rows) {
      const std::span<float> y = part(logits, rows.count() * ids.count());
      m.apply(w, floats(residual, rows), y);
      m.each_row(y, ids.count(), [&](Index row, std::span<float> of_row) {
        const auto at = static_cast<std::size_t>(rows.begin + row);
        meet_logits(states[at], of_row, ids.begin, next[at], static_cast<float>(s.logit_cap));
      });
    });
  }
  NextTokens tokens;
  for (const LogitState& state : states) {
    const double lse = std::log(state.sum);  // less the top
    tokens.id.push_back(state.best);
    tokens.probability.push_back(static_cast<float>(1 / state.sum));
    tokens.bits.push_back(static_cast<float>((lse + state.top - state.wanted) / std::numbers::ln2));
    tokens.entropy.push_back(static_cast<float>((lse - state.weighted / state.sum) / std::numbers::ln2));
  }
  return tokens;
}

}  // namespace annulus

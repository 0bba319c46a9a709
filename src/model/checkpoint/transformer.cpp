#include "annulus/model/transformer.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numbers>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/model/checkpoint.hpp"
#include "annulus/model/products.hpp"
#include "base/threads.hpp"
#include "model/checkpoint/architecture.hpp"
#include "model/checkpoint/token_work.hpp"

namespace annulus {
namespace {

constexpr Index rows_at_a_time = 512;        // their numbers between two products stay in L2 and L3
constexpr Index rows_per_item = 8;           // of a thread's work between products
constexpr Index logits_at_a_time = 1 << 21;  // 8 MiB

std::vector<float> numbers_of(const Tensor& tensor) {
  Index count = 1;
  for (const Index n : tensor.dims) count *= n;
  std::vector<float> numbers(static_cast<std::size_t>(count));
  auto* bytes = const_cast<std::byte*>(tensor.bytes.data());  // only read
  convert(dense_rows(bytes, tensor.type, 1, 1, count), dense_rows(numbers.data(), DType::f32, 1, 1, count));
  return numbers;
}

double operations_of(const Linear& linear) {
  return 2.0 * static_cast<double>(linear.inputs) * static_cast<double>(linear.outputs);
}

Rows rows_of(std::span<const float> numbers, Index channels) {
  auto* data = const_cast<float*>(numbers.data());  // only read, or the caller's to write
  return dense_rows(data, DType::f32, static_cast<Index>(numbers.size()) / channels, 1, channels);
}

}  // namespace

struct Transformer::State {
  TransformerShape shape;
  std::string folder;
  Checkpoint checkpoint;
  ModelTensors tensors;
  Products products;
  int threads = 1;
  Worked worked = {};

  State(const std::string& where, TransformerShape form, DType type, int count)
      : shape(std::move(form)),
        folder(where),
        checkpoint(where),
        tensors(find_tensors(shape, checkpoint)),
        products(type == DType::bf16 ? DType::bf16 : DType::f32, count),
        threads(count) {
    check();
  }

  // --- what lies in the files ---

  const Tensor& tensor(const std::string& name, std::vector<Index> dims) const { return checkpoint.tensor(name, dims); }

  const Tensor& matrix(const Linear& linear, const Part& part) const {
    return tensor(part.name + ".weight", linear.transposed ? std::vector{linear.inputs, part.outputs}
                                                           : std::vector{part.outputs, linear.inputs});
  }

  const Tensor* bias(const Part& part) const {
    const std::string name = part.name + ".bias";
    require<Failure::file>(shape.attention_bias || part.name.find("att") == part.name.npos || !checkpoint.has(name),
                           folder, " must not have the tensor ", name, " where config.json says attention_bias: false");
    return checkpoint.has(name) ? &tensor(name, {part.outputs}) : nullptr;
  }

  NormWeights norm(const std::string& name, Index channels) const {
    NormWeights weights{numbers_of(tensor(name + ".weight", {channels})), {}};
    if (shape.norm_adds_one)
      for (float& x : weights.scale) x += 1;
    if (checkpoint.has(name + ".bias")) weights.shift = numbers_of(tensor(name + ".bias", {channels}));
    return weights;
  }

  NormRule rule() const { return {shape.norm, shape.norm_epsilon}; }

  // Everything is there, as it will be asked for.
  void check() const {
    tensor(tensors.embedding + ".weight", {shape.vocabulary, shape.channels});
    if (shape.learned_positions) tensor(tensors.positions + ".weight", {shape.positions, shape.channels});
    if (!tensors.embedding_norm.empty()) norm(tensors.embedding_norm, shape.channels);
    norm(tensors.final_norm, shape.channels);
    if (!tensors.read_out.empty()) tensor(tensors.read_out + ".weight", {shape.vocabulary, shape.channels});
    for (const LayerTensors& t : tensors.layer) {
      for (const Linear* linear : {&t.q, &t.k, &t.v, &t.out, &t.gate, &t.up, &t.down}) {
        for (const Part& part : linear->parts) matrix(*linear, part), bias(part);
      }
      for (const std::string* name : {&t.before_attention, &t.after_attention, &t.before_mlp, &t.after_mlp})
        if (!name->empty()) norm(*name, shape.channels);
      if (!t.q_norm.empty()) norm(t.q_norm, head_norm_channels(t, shape.query_heads));
      if (!t.k_norm.empty()) norm(t.k_norm, head_norm_channels(t, shape.kv_heads));
    }
  }

  Index head_norm_channels(const LayerTensors& t, Index heads) const {
    return t.norm_all_heads ? heads * shape.head_channels : shape.head_channels;
  }

  // --- work on rows ---

  Weights ready(const Linear& linear) {
    std::vector<WeightPiece> pieces;
    for (const Part& part : linear.parts)
      pieces.push_back({&matrix(linear, part), part.taken, linear.transposed, bias(part)});
    Weights weights = products.prepare(pieces);
    for (const WeightPiece& piece : pieces) checkpoint.release(*piece.matrix);
    return weights;
  }

  // y = x w^T + bias, [rows, outputs].
  void apply(const Weights& w, std::span<const float> x, std::span<float> y) {
    products.multiply(w, rows_of(x, w.inputs()), rows_of(y, w.outputs()));
  }

  // work(row number, the row), by all threads.
  template <class Work>
  void each_row(std::span<float> rows, Index channels, const Work& work) const {
    const auto count = static_cast<Index>(rows.size()) / channels;
    for_each_item(threads, ceil_div(count, rows_per_item), [&](Index item, int) {
      for (Index row = item * rows_per_item; row < std::min(count, (item + 1) * rows_per_item); ++row)
        work(row, rows.subspan(static_cast<std::size_t>(row * channels), static_cast<std::size_t>(channels)));
    });
  }

  // Portions of rows, [begin, end).
  template <class Work>
  void in_portions(Index rows, double operations, const Work& work) const {
    for (Index begin = 0; begin < rows; begin += rows_at_a_time) {
      const Range range{begin, std::min(rows, begin + rows_at_a_time)};
      work(range);
      if (worked) worked(operations * static_cast<double>(range.count()));
    }
  }

  void normalised(const std::string& name, std::span<const float> x, std::span<float> y) const {
    const Index channels = shape.channels;
    if (name.empty()) {
      if (x.data() != y.data()) std::ranges::copy(x, y.begin());
      return;
    }
    const NormWeights weights = norm(name, channels);
    each_row(y, channels, [&](Index row, std::span<float> into) {
      normalise(rule(), weights, channels,
                x.subspan(static_cast<std::size_t>(row * channels), static_cast<std::size_t>(channels)), into);
    });
  }
};

namespace {

// f32 numbers of dense rows.
std::span<float> floats(const Rows& rows, Range range) {
  const Index channels = rows.heads * rows.channels;
  return {rows.at<float>(range.begin), static_cast<std::size_t>(range.count() * channels)};
}

std::span<float> part(std::vector<float>& buffer, Index count) {
  const auto n = static_cast<std::size_t>(count);
  if (buffer.size() < n) buffer.resize(n);
  return {buffer.data(), n};
}

}  // namespace

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

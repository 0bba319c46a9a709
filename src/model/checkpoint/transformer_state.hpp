#pragma once
#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/model/checkpoint.hpp"
#include "annulus/model/products.hpp"
#include "annulus/model/transformer.hpp"
#include "base/threads.hpp"
#include "model/checkpoint/architecture.hpp"
#include "model/checkpoint/token_work.hpp"

namespace annulus {

inline constexpr Index rows_at_a_time = 512;        // their numbers between two products stay in L2 and L3
inline constexpr Index rows_per_item = 8;           // of a thread's work between products
inline constexpr Index logits_at_a_time = 1 << 21;  // 8 MiB

inline std::vector<float> numbers_of(const Tensor& tensor) {
  Index count = 1;
  for (const Index n : tensor.dims) count *= n;
  std::vector<float> numbers(static_cast<std::size_t>(count));
  auto* bytes = const_cast<std::byte*>(tensor.bytes.data());  // only read
  convert(dense_rows(bytes, tensor.type, 1, 1, count), dense_rows(numbers.data(), DType::f32, 1, 1, count));
  return numbers;
}

inline double operations_of(const Linear& linear) {
  return 2.0 * static_cast<double>(linear.inputs) * static_cast<double>(linear.outputs);
}

inline Rows rows_of(std::span<const float> numbers, Index channels) {
  auto* data = const_cast<float*>(numbers.data());  // only read, or the caller's to write
  return dense_rows(data, DType::f32, static_cast<Index>(numbers.size()) / channels, 1, channels);
}

/// What a Transformer works with: the files, and how work on rows is shared out.
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

// f32 numbers of dense rows.
inline std::span<float> floats(const Rows& rows, Range range) {
  const Index channels = rows.heads * rows.channels;
  return {rows.at<float>(range.begin), static_cast<std::size_t>(range.count() * channels)};
}

inline std::span<float> part(std::vector<float>& buffer, Index count) {
  const auto n = static_cast<std::size_t>(count);
  if (buffer.size() < n) buffer.resize(n);
  return {buffer.data(), n};
}

}  // namespace annulus

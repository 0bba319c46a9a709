#include <algorithm>
#include <cstdint>
#include <utility>

#include "products_engine.hpp"

namespace annulus {
namespace {

using checkpoint::dense, checkpoint::matrix;

constexpr Index panel_bytes = Index{16} << 20U;  // of w, converted at once
constexpr Index panel_blocks = 192;  // outputs: a multiple of every block that oneDNN has (16, 24, 32, 48, 64)

Index outputs_of(const WeightPiece& piece) { return piece.matrix->dims[piece.transposed ? 1 : 0]; }
Index inputs_of(const WeightPiece& piece) { return piece.matrix->dims[piece.transposed ? 0 : 1]; }

void check_pieces(std::span<const WeightPiece> pieces) {
  require(!pieces.empty(), "weights need at least one piece");
  for (const WeightPiece& piece : pieces) {
    require(piece.matrix != nullptr && piece.matrix->dims.size() == 2, "weights are made of matrices",
            piece.matrix == nullptr ? "" : ", but '" + piece.matrix->name + "' is none");
    const Tensor& w = *piece.matrix;
    require(inputs_of(piece) == inputs_of(pieces[0]) && inputs_of(piece) > 0,
            "pieces of weights must have as many inputs, at least one: '", w.name, "' has ", inputs_of(piece), ", '",
            pieces[0].matrix->name, "' has ", inputs_of(pieces[0]));
    require(
        0 <= piece.outputs.begin && piece.outputs.begin < piece.outputs.end && piece.outputs.end <= outputs_of(piece),
        "a piece of weights must have outputs that its matrix has: '", w.name, "' has ", outputs_of(piece),
        ", the piece ", piece.outputs.begin, " to ", piece.outputs.end);
    const Tensor* bias = piece.bias;
    require(bias == nullptr || (bias->dims.size() == 1 && bias->dims[0] == outputs_of(piece)),
            "a bias must have an element for each output of '", w.name, "'",
            bias == nullptr ? "" : ", but '" + bias->name + "' has not");
  }
}

}  // namespace

Weights::Weights(std::unique_ptr<Contents> contents) : contents_(std::move(contents)) {}
Weights::Weights(Weights&& other) noexcept = default;
Weights& Weights::operator=(Weights&& other) noexcept = default;
Weights::~Weights() = default;
Index Weights::inputs() const { return contents_->inputs; }
Index Weights::outputs() const { return contents_->outputs; }
Index Weights::bytes() const { return contents_->memory.rows().bytes() + contents_->bias.rows().bytes(); }

WeightPiece whole(const Tensor& matrix, bool transposed, const Tensor* bias) {
  require(matrix.dims.size() == 2, "weights are made of matrices, but '", matrix.name, "' is none");
  return {&matrix, {0, matrix.dims[transposed ? 1 : 0]}, transposed, bias};
}

// A copy where every element is aligned: those of a file need not be.
Array Products::Engine::aligned(const Rows& rows) {
  Array copy(device, rows.type, rows.tokens, rows.heads, rows.channels);
  device.copy_rows(rows, copy);
  return copy;
}

// Some outputs of a piece, counted from its first, converted as they are stored: [outputs, inputs], or [inputs, outputs].
void Products::Engine::take(const WeightPiece& piece, Range outputs, const Rows& into) {
  const Tensor& w = *piece.matrix;
  const Index element = bytes_of(w.type), inputs = inputs_of(piece), first = piece.outputs.begin + outputs.begin;
  auto* data = const_cast<std::byte*>(w.bytes.data());  // rows are views to read or write; these are read
  Rows from = dense_rows(data + first * inputs * element, w.type, outputs.count(), 1, inputs);
  if (piece.transposed)
    from = {data + first * element, w.type, Place::cpu, inputs, 1, outputs.count(), outputs_of(piece) * element};
  Array copy;
  if (reinterpret_cast<std::uintptr_t>(from.data) % static_cast<std::uintptr_t>(element) != 0) {
    copy = aligned(from);
    from = copy;
  }
  convert(from, into);
}

// The same, to a panel [outputs, inputs].
void Products::Engine::fill(const WeightPiece& piece, Range outputs, const Rows& panel) {
  if (!piece.transposed) return take(piece, outputs, panel);
  const Index count = outputs.count(), inputs = inputs_of(piece);
  const Array turned(device, computed, inputs, 1, count);
  take(piece, outputs, turned);
  reorder(on(matrix(count, inputs, computed, 1, count), turned.rows().data),
          on(dense(count, inputs, computed), panel.data));
}

void Products::Engine::fill_bias(std::span<const WeightPiece> pieces, const Rows& bias) {
  device.clear(bias);
  Index done = 0;
  for (const WeightPiece& piece : pieces) {
    const Index count = piece.outputs.count();
    if (const Tensor* tensor = piece.bias) {
      auto* data = const_cast<std::byte*>(tensor->bytes.data());
      const Rows from = dense_rows(data, tensor->type, outputs_of(piece), 1, 1);
      device.convert(aligned(from.slice(piece.outputs.begin, piece.outputs.end)), bias.slice(done, done + count));
    }
    done += count;
  }
}

// All outputs of the pieces, a panel after another: hardly more memory is needed than for the result.
void Products::Engine::pack(std::span<const WeightPiece> pieces, const Weights::Contents& w) {
  const Index row_bytes = w.inputs * bytes_of(computed);
  const Index at_once = std::max<Index>(1, panel_bytes / row_bytes / panel_blocks) * panel_blocks;
  const Array panel(device, computed, std::min(at_once, w.outputs), 1, w.inputs);
  std::size_t n = 0;  // the piece, of which `taken` outputs are done
  for (Index begin = 0, taken = 0; begin < w.outputs; begin += at_once) {
    const Index count = std::min(at_once, w.outputs - begin);
    const auto to = on(w.layout.submemory_desc({w.inputs, count}, {0, begin}), w.memory.rows().data);
    if (pieces[n].transposed && taken + count <= pieces[n].outputs.count()) {  // as w is: nothing to turn
      take(pieces[n], {taken, taken + count}, dense_rows(panel.rows().data, computed, w.inputs, 1, count));
      reorder(on(dense(w.inputs, count, computed), panel.rows().data), to);
      taken += count;
      if (taken == pieces[n].outputs.count()) ++n, taken = 0;
      continue;
    }
    for (Index filled = 0; filled < count;) {
      const Index part = std::min(count - filled, pieces[n].outputs.count() - taken);
      fill(pieces[n], {taken, taken + part}, panel.rows().slice(filled, filled + part));
      filled += part;
      taken += part;
      if (taken == pieces[n].outputs.count()) ++n, taken = 0;
    }
    reorder(on(matrix(w.inputs, count, computed, 1, w.inputs), panel.rows().data), to);
  }
}

Weights Products::prepare(std::span<const WeightPiece> pieces) {
  check_pieces(pieces);
  Engine& engine = *engine_;
  return checkpoint::with_threads(engine.threads, [&] {
    auto made = std::make_unique<Weights::Contents>();
    Weights::Contents& w = *made;
    w.type = engine.type;
    w.inputs = inputs_of(pieces[0]);
    for (const WeightPiece& piece : pieces) w.outputs += piece.outputs.count();
    w.layout = engine.best_for(w.inputs, w.outputs).weights_desc();
    w.device.use_threads(engine.threads);
    const auto bytes = static_cast<Index>(w.layout.get_size()), element = bytes_of(engine.computed);
    w.memory = Array(w.device, engine.computed, ceil_div(bytes, element), 1, 1);
    if (bytes > w.inputs * w.outputs * element) w.device.clear(w.memory);  // what pads its blocks must not be NaN
    engine.pack(pieces, w);
    if (std::ranges::any_of(pieces, [](const WeightPiece& piece) { return piece.bias != nullptr; })) {
      w.bias = Array(w.device, DType::f32, w.outputs, 1, 1);
      engine.fill_bias(pieces, w.bias);
    }
    return Weights(std::move(made));
  });
}

}  // namespace annulus

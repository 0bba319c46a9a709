#include "annulus/model/products.hpp"

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "dnnl_product.hpp"

namespace annulus {
namespace {

using dnnl::memory;

constexpr Index rows_at_once = 1024;             // of x: more is no faster, and its copy in bf16 would be longer
constexpr Index panel_bytes = Index{16} << 20U;  // of w, converted at once
constexpr Index panel_blocks = 192;      // outputs: a multiple of every block that oneDNN has (16, 24, 32, 48, 64)
constexpr std::size_t most_ready = 256;  // kept ready, one for each shape

memory::data_type data_type_of(DType type) {
  return type == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

// A matrix whose element (row, column) is row * row_step + column * column_step elements from the first.
memory::desc matrix(Index rows, Index columns, DType type, Index row_step, Index column_step = 1) {
  return memory::desc({rows, columns}, data_type_of(type), memory::dims{row_step, column_step});
}
memory::desc dense(Index rows, Index columns, DType type) { return matrix(rows, columns, type, columns); }

// OpenMP's number of threads is the calling thread's own; oneDNN takes it when it makes a product and when it runs one.
class Threads {
 public:
  explicit Threads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// Calls work() with so many threads; oneDNN's errors become ours.
template <class Work>
auto with(int threads, const Work& work) {
  const Threads set(threads);
  try {
    return work();
  } catch (const dnnl::error& error) {
    throw Error(error.status == dnnl_out_of_memory ? Failure::fit : Failure::runtime,
                sentence("oneDNN cannot multiply matrices: ", error.what()));
  }
}

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

Index elements_in(const Rows& rows) { return rows.heads * rows.channels; }

}  // namespace

struct Weights::Contents {
  CpuDevice device;
  Array memory;  // as `layout` has it
  Array bias;    // [1, outputs] f32, absent when all pieces have none
  memory::desc layout;
  Index inputs = 0, outputs = 0;
  DType type = DType::f32;
};

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

struct Products::Engine {
  Engine(DType asked, int count) : type(asked), threads(count) {
    device.use_threads(count);
    if (!has_products()) computed = DType::f32;
  }

  // A product of one shape, ready to run.
  struct Ready {
    dnnl::matmul::primitive_desc description;
    dnnl::matmul run;
  };

  const DType type;       // what numbers are rounded to
  DType computed = type;  // what they are kept as: f32 for bf16 too, where the processor has no products of bf16
  const int threads;
  CpuDevice device;  // of copies
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<std::tuple<Index, Index, Index, bool, bool>, Ready> ready;  // by rows, inputs, outputs, bias, accumulate
  Array scratch;                                                       // oneDNN's own

  dnnl::memory on(const memory::desc& layout, std::byte* data) const { return {layout, engine, data}; }
  void reorder(const dnnl::memory& from, const dnnl::memory& to);
  void convert(const Rows& from, const Rows& to);
  dnnl::matmul::primitive_desc best_for(Index inputs, Index outputs) const;
  bool has_products() const;
  Array aligned(const Rows& rows);
  void take(const WeightPiece& piece, Range outputs, const Rows& into);
  void fill(const WeightPiece& piece, Range outputs, const Rows& panel);
  void pack(std::span<const WeightPiece> pieces, const Weights::Contents& w);
  Rows ready_rows(const Rows& x, Array& copy);
  void fill_bias(std::span<const WeightPiece> pieces, const Rows& bias);
  const Ready& ready_for(const Weights::Contents& w, Index rows, bool accumulate);
  void run(const Weights::Contents& w, const Rows& x, const Rows& y, bool accumulate);
};

void Products::Engine::reorder(const dnnl::memory& from, const dnnl::memory& to) {
  dnnl::reorder(from, to).execute(stream, const_cast<dnnl::memory&>(from), const_cast<dnnl::memory&>(to));
  stream.wait();
}

// Rounds to `type`, whatever it is kept as.
void Products::Engine::convert(const Rows& from, const Rows& to) {
  if (computed == type || from.type == type) return device.convert(from, to);
  const Array rounded(device, type, from.tokens, from.heads, from.channels);
  device.convert(from, rounded);
  device.convert(rounded, to);
}

// How oneDNN would multiply many rows, and keep the weights.
dnnl::matmul::primitive_desc Products::Engine::best_for(Index inputs, Index outputs) const {
  const memory::desc any({inputs, outputs}, data_type_of(computed), memory::format_tag::any);
  return checkpoint::describe(
      engine, {dense(rows_at_once, inputs, computed), any, {}, dense(rows_at_once, outputs, DType::f32)}, {});
}

// Whether the processor has products of what is computed in: oneDNN refuses others, or has its slow reference for them.
bool Products::Engine::has_products() const {
  try {
    return !std::string_view(best_for(1024, 1024).impl_info_str()).starts_with("ref");
  } catch (const dnnl::error& error) {
    if (error.status != dnnl_unimplemented) throw;
    return false;
  }
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

const Products::Engine::Ready& Products::Engine::ready_for(const Weights::Contents& w, Index rows, bool accumulate) {
  const bool has_bias = !w.bias.rows().absent();
  const std::tuple key(rows, w.inputs, w.outputs, has_bias, accumulate);
  if (const auto known = ready.find(key); known != ready.end()) return known->second;
  if (ready.size() >= most_ready) ready.clear();
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever the environment says
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attributes.set_post_ops(sum);
  }
  const auto description = checkpoint::describe(
      engine,
      {dense(rows, w.inputs, computed), w.layout, has_bias ? dense(1, w.outputs, DType::f32) : memory::desc(),
       dense(rows, w.outputs, DType::f32)},
      attributes);
  return ready.emplace(key, Ready{description, dnnl::matmul(description)}).first->second;
}

// Dense rows of the types computed in: oneDNN 2.6 has only its slow reference for others.
void Products::Engine::run(const Weights::Contents& w, const Rows& x, const Rows& y, bool accumulate) {
  const Ready& product = ready_for(w, x.tokens, accumulate);
  const auto needed = static_cast<Index>(product.description.scratchpad_desc().get_size());
  if (scratch.rows().bytes() < needed) scratch = Array(device, DType::f32, ceil_div(needed, 4), 1, 1);
  std::unordered_map<int, dnnl::memory> arguments{
      {DNNL_ARG_SRC, on(product.description.src_desc(), x.data)},
      {DNNL_ARG_WEIGHTS, on(w.layout, w.memory.rows().data)},
      {DNNL_ARG_DST, on(product.description.dst_desc(), y.data)},
      {DNNL_ARG_SCRATCHPAD, on(product.description.scratchpad_desc(), scratch.rows().data)}};
  if (!w.bias.rows().absent())
    arguments.emplace(DNNL_ARG_BIAS, on(dense(1, w.outputs, DType::f32), w.bias.rows().data));
  product.run.execute(stream, arguments);
  stream.wait();
}

Products::Products(DType type, int threads) {
  require(type == DType::f32 || type == DType::bf16, "projections are computed in f32 or bf16, not in ", name_of(type));
  require(threads >= 1, "projections need at least one thread, not ", threads);
  engine_ = with(threads, [&] { return std::make_unique<Engine>(type, threads); });
}

Products::Products(Products&& other) noexcept = default;
Products& Products::operator=(Products&& other) noexcept = default;
Products::~Products() = default;
DType Products::type() const { return engine_->type; }

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

// Rows as they are where they can be multiplied, or their copy.
Rows Products::Engine::ready_rows(const Rows& x, Array& copy) {
  if (x.type == computed && computed == type && (x.dense() || x.tokens == 1)) return x;
  copy = Array(device, computed, x.tokens, x.heads, x.channels);
  convert(x, copy);
  return copy;
}

Weights Products::prepare(std::span<const WeightPiece> pieces) {
  check_pieces(pieces);
  Engine& engine = *engine_;
  return with(engine.threads, [&] {
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

void Products::multiply(const Weights& weights, const Rows& x, const Rows& y, bool accumulate) {
  Engine& engine = *engine_;
  const Weights::Contents& w = *weights.contents_;
  require(w.type == engine.type, "weights must be prepared for the type that they are multiplied in: ", name_of(w.type),
          ", not ", name_of(engine.type));
  require(elements_in(x) == w.inputs && elements_in(y) == w.outputs && x.tokens == y.tokens,
          "a product must be of rows of ", w.inputs, " inputs and ", w.outputs, " outputs, not of ", x.tokens,
          " rows of ", elements_in(x), " and ", y.tokens, " rows of ", elements_in(y));
  require(x.place == Place::cpu && y.place == Place::cpu && y.type == DType::f32,
          "a product is of rows in CPU memory, and its result is f32, not ", name_of(y.type));
  check_layout("x", x);
  check_layout("y", y);
  with(engine.threads, [&] {
    for (Index begin = 0; begin < x.tokens; begin += rows_at_once) {
      const Index end = std::min(x.tokens, begin + rows_at_once);
      Array copy;
      const Rows from = engine.ready_rows(x.slice(begin, end), copy), into = y.slice(begin, end);
      if (into.dense() || into.tokens == 1) {
        engine.run(w, from, into, accumulate);
        continue;
      }
      const Array result(engine.device, DType::f32, into.tokens, into.heads, into.channels);
      engine.run(w, from, result, false);
      if (accumulate) engine.device.add(result, into);
      else engine.device.copy_rows(result, into);
    }
  });
}

}  // namespace annulus

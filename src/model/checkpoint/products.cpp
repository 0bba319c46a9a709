#include "annulus/model/products.hpp"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "products_engine.hpp"

namespace annulus {
namespace {

using checkpoint::dense, dnnl::memory;

constexpr Index rows_at_once = 1024;     // of x: more is no faster, and its copy in bf16 would be longer
constexpr std::size_t most_ready = 256;  // kept ready, one for each shape

Index elements_in(const Rows& rows) { return rows.heads * rows.channels; }

}  // namespace

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
  const memory::desc any({inputs, outputs}, checkpoint::data_type_of(computed), memory::format_tag::any);
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
  engine_ = checkpoint::with_threads(threads, [&] { return std::make_unique<Engine>(type, threads); });
}

Products::Products(Products&& other) noexcept = default;
Products& Products::operator=(Products&& other) noexcept = default;
Products::~Products() = default;
DType Products::type() const { return engine_->type; }

// Rows as they are where they can be multiplied, or their copy.
Rows Products::Engine::ready_rows(const Rows& x, Array& copy) {
  if (x.type == computed && computed == type && (x.dense() || x.tokens == 1)) return x;
  copy = Array(device, computed, x.tokens, x.heads, x.channels);
  convert(x, copy);
  return copy;
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
  checkpoint::with_threads(engine.threads, [&] {
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

#pragma once
#include <omp.h>

#include <map>
#include <span>
#include <tuple>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/model/products.hpp"
#include "dnnl_product.hpp"

namespace annulus {
namespace checkpoint {

using dnnl::memory;

inline memory::data_type data_type_of(DType type) {
  return type == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

/// A matrix whose element (row, column) is row * row_step + column * column_step elements from the first.
inline memory::desc matrix(Index rows, Index columns, DType type, Index row_step, Index column_step = 1) {
  return memory::desc({rows, columns}, data_type_of(type), memory::dims{row_step, column_step});
}
inline memory::desc dense(Index rows, Index columns, DType type) { return matrix(rows, columns, type, columns); }

/// OpenMP's number of threads is the calling thread's own; oneDNN takes it when it makes a product and when it runs one.
class Threads {
 public:
  explicit Threads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

/// Calls work() with so many threads; oneDNN's errors become ours.
template <class Work>
auto with_threads(int threads, const Work& work) {
  const Threads set(threads);
  try {
    return work();
  } catch (const dnnl::error& error) {
    throw Error(error.status == dnnl_out_of_memory ? Failure::fit : Failure::runtime,
                sentence("oneDNN cannot multiply matrices: ", error.what()));
  }
}

}  // namespace checkpoint

struct Weights::Contents {
  CpuDevice device;
  Array memory;  // as `layout` has it
  Array bias;    // [1, outputs] f32, absent when all pieces have none
  dnnl::memory::desc layout;
  Index inputs = 0, outputs = 0;
  DType type = DType::f32;
};

struct Products::Engine {
  Engine(DType asked, int count) : type(asked), threads(count) {
    device.use_threads(count);
    if (!has_products()) computed = DType::f32;
  }

  /// A product of one shape, ready to run.
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

  dnnl::memory on(const dnnl::memory::desc& layout, std::byte* data) const { return {layout, engine, data}; }
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

}  // namespace annulus

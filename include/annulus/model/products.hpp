#pragma once
#include <memory>
#include <span>

#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"
#include "annulus/model/checkpoint.hpp"

namespace annulus {

/// Some outputs of a Linear as a checkpoint has it.
struct WeightPiece {
  const Tensor* matrix = nullptr;  ///< [outputs, inputs]; transposed: [inputs, outputs], as GPT-2's Conv1D has it
  Range outputs;                   ///< which of the matrix's
  bool transposed = false;
  const Tensor* bias = nullptr;  ///< [outputs], of the whole matrix; null: zeros
};

/// All outputs of a matrix.
WeightPiece whole(const Tensor& matrix, bool transposed = false, const Tensor* bias = nullptr);

/// A matrix that Products::prepare made ready: a copy, which needs neither the checkpoint nor the Products any more.
class Weights {
 public:
  Weights(Weights&& other) noexcept;
  Weights& operator=(Weights&& other) noexcept;
  ~Weights();
  Index inputs() const;
  Index outputs() const;
  /// What it takes: padded to the library's blocks.
  Index bytes() const;

 private:
  friend class Products;
  struct Contents;
  explicit Weights(std::unique_ptr<Contents> contents);
  std::unique_ptr<Contents> contents_;
};

/// Products of rows with the matrices of a model, by oneDNN:  y = x w^T + bias, as torch.nn.Linear.
/// f32: products and sums in f32. bf16: x and w are rounded to bf16 (nearest even), their products are exact and summed in
/// f32; f32 numbers below 2^-126 may count as 0. Infinities and NaN come through as arithmetic has them.
/// The same call gives the same bits for the same number of threads. One rank's, not thread-safe; but ranks that are
/// threads of one process may each have one, and work at the same time: OpenMP's number of threads is the calling thread's,
/// and when a function returns it is what it was.
class Products {
 public:
  /// type: f32 or bf16. Throws Error (usage) for others, and for less than one thread.
  Products(DType type, int threads);
  Products(Products&& other) noexcept;
  Products& operator=(Products&& other) noexcept;
  ~Products();
  DType type() const;

  /// Stacks the outputs of all pieces, in order. Converts a panel of some MiB after another, so that it needs hardly more
  /// memory than the result. Throws Error: usage, where shapes or ranges do not fit; fit, where memory is short.
  Weights prepare(std::span<const WeightPiece> pieces);
  Weights prepare(const WeightPiece& piece) { return prepare({&piece, 1}); }

  /// y = x w^T + bias, or y += that. x: CPU rows of `inputs` elements (heads x channels) of any type; y: f32 CPU rows of
  /// `outputs`, of any pitch, apart from x. No rows are no work. Fastest where both are dense and x is of the type computed in.
  /// Throws Error (usage) where shapes do not fit.
  void multiply(const Weights& weights, const Rows& x, const Rows& y, bool accumulate = false);

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace annulus

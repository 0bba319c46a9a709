#pragma once
#include "annulus/kernel/kernel.hpp"

namespace annulus {

/// Owns a partial and makes it the identity (out = 0, sum = 0, top = -inf). type: f32 or f64.
class PartialArray {
 public:
  PartialArray(Device& device, DType type, Index rows, Index heads, Index value_channels);
  Partial view() const { return {out_, top_, sum_}; }

 private:
  Array out_, top_, sum_;
};

/// Makes a partial the identity: out = 0, sum = 0, top = -inf. CPU.
void reset(const Partial& partial);
/// The same without out, which has no meaning while top is -inf: for kernels that do not read it then. merge and finish do not.
void reset_scores(const Partial& partial);

/// Merges the attention of disjoint key sets over the same rows. With m = max(top_a, top_b) and w_i = exp(top_i - m):
///   out = w_a out_a + w_b out_b,  sum = w_a sum_a + w_b sum_b,  top = m;  a side with top = -inf adds nothing.
/// Associative, the identity is neutral, and any jump between the tops is safe. f32 or f64, same shapes, CPU.
/// After Milakov & Gimelshein, arXiv:1805.02867; laws in tests/kernel/partial_test.cpp.
void merge(const Partial& from, const Partial& into);

/// Normalises once, at the end: out /= sum and lse = top + log(sum), written to `lse` [rows, heads, 1] (which may be
/// partial.top). A row that saw no key becomes out = 0, lse = -inf.
void finish(const Partial& partial, const Rows& lse);

/// delta = rowsum(dout * out), before out is rounded: [rows, heads, 1]. out and delta f32 or f64; dout any type.
void row_dot(const Rows& dout, const Rows& out, const Rows& delta);

}  // namespace annulus

#pragma once
#include "kernel/cuda/simt_observe.hpp"

// What is done once per row and head, or once per number: thread n of all does item n.

namespace annulus::cuda {

inline constexpr int rowwise_threads = 128;

/// Job x of a rowwise body is the x-th group of threads.
template <class Thread>
ANNULUS_GPU Index item_of(const Thread& t) {
  return t.job() * rowwise_threads + t.index();
}

template <class Acc>
struct Reset {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  Partial partial;
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Rows& out = partial.out;
    const Index n = item_of(t), row = n / out.heads, h = n % out.heads;
    if (row >= out.tokens) return;
    for (Index c = 0; c < out.channels; ++c) at<Acc>(out, row, h)[c] = 0;
    *at<Acc>(partial.sum, row, h) = 0;
    *at<Acc>(partial.top, row, h) = nothing<Acc>;
  }
};

template <class Acc>
struct Merge {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  Partial from, into;
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Rows& out = into.out;
    const Index n = item_of(t), row = n / out.heads, h = n % out.heads;
    if (row >= out.tokens) return;
    const Acc a = *at<const Acc>(from.top, row, h);
    Acc& b = *at<Acc>(into.top, row, h);
    if (a == nothing<Acc>) return;
    const Acc m = a < b ? b : a, wa = std::exp(a - m), wb = b == nothing<Acc> ? Acc{0} : std::exp(b - m);
    Acc& sum = *at<Acc>(into.sum, row, h);
    sum = wa * *at<const Acc>(from.sum, row, h) + wb * sum;
    const Acc* x = at<const Acc>(from.out, row, h);
    Acc* y = at<Acc>(out, row, h);
    for (Index c = 0; c < out.channels; ++c) y[c] = wa * x[c] + wb * y[c];
    b = m;
  }
};

template <class Acc>
struct Finish {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  Partial partial;
  Rows lse;
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Rows& out = partial.out;
    const Index n = item_of(t), row = n / out.heads, h = n % out.heads;
    if (row >= out.tokens) return;
    const Acc sum = *at<const Acc>(partial.sum, row, h), top = *at<const Acc>(partial.top, row, h);
    const bool seen = sum != 0;  // a sum that is not a number must show
    Acc* o = at<Acc>(out, row, h);
    for (Index c = 0; c < out.channels; ++c) o[c] = seen ? o[c] / sum : Acc{0};
    *at<Acc>(lse, row, h) = seen ? top + std::log(sum) : nothing<Acc>;
  }
};

template <class In, class Acc>
struct RowDot {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  Rows dout, out, delta;
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Index n = item_of(t), row = n / out.heads, h = n % out.heads;
    if (row >= out.tokens) return;
    double dot = 0;
    for (Index c = 0; c < out.channels; ++c)
      dot += static_cast<double>(In::value(at<const typename In::Stored>(dout, row, h)[c])) *
             static_cast<double>(at<const Acc>(out, row, h)[c]);
    *at<Acc>(delta, row, h) = static_cast<Acc>(dot);
  }
};

/// Adds the whole numbers that Observe left to the statistics.
template <class Acc>
struct Fold {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  const simt::Fixed* received;
  Rows into;
  const simt::Fixed* map;
  double* cells;
  Index count;  ///< of cells
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Index n = item_of(t);
    constexpr double unit = 1 / simt::fixed_scale<Acc>;
    if (received != nullptr && n < into.tokens * into.heads)
      *at<Acc>(into, n / into.heads, n % into.heads) += static_cast<Acc>(static_cast<double>(received[n]) * unit);
    if (map != nullptr && n < count) cells[n] += static_cast<double>(map[n]) * unit;
  }
};

}  // namespace annulus::cuda

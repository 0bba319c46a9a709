#pragma once
#include "kernel/cuda/simt_observe.hpp"

// What is done once per row and head, by a warp whose lanes take every 32nd channel; or once per number, by a thread.

namespace annulus::cuda {

inline constexpr int rowwise_threads = 128, lanes = 32, rows_at_once = rowwise_threads / lanes;

/// The row and head of a thread's warp, of all [tokens, heads], and its lane. Job x is the x-th group of rows.
struct Item {
  Index row, head;
  int lane;
};
template <class Thread>
ANNULUS_GPU Item item_of(const Thread& t, Index heads) {
  const Index n = t.job() * rows_at_once + t.index() / lanes;
  return {n / heads, n % heads, t.index() % lanes};
}

template <class Acc>
struct Reset {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  Partial partial;
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Rows& out = partial.out;
    const Item i = item_of(t, out.heads);
    if (i.row >= out.tokens) return;
    for (Index c = i.lane; c < out.channels; c += lanes) at<Acc>(out, i.row, i.head)[c] = 0;
    if (i.lane != 0) return;
    *at<Acc>(partial.sum, i.row, i.head) = 0;
    *at<Acc>(partial.top, i.row, i.head) = nothing<Acc>;
  }
};

template <class Acc>
struct Merge {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  Partial from, into;
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Rows& out = into.out;
    const Index n = t.job() * rowwise_threads + t.index(), row = n / out.heads, h = n % out.heads;
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
  Rows lse;  ///< may be the partial's top
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Rows& out = partial.out;
    const Item i = item_of(t, out.heads);
    if (i.row >= out.tokens) return;
    const Acc sum = *at<const Acc>(partial.sum, i.row, i.head);
    const bool seen = sum != 0;  // a sum that is not a number must show
    Acc* o = at<Acc>(out, i.row, i.head);
    for (Index c = i.lane; c < out.channels; c += lanes) o[c] = seen ? o[c] / sum : Acc{0};
    if (i.lane != 0) return;
    const Acc top = *at<const Acc>(partial.top, i.row, i.head);
    *at<Acc>(lse, i.row, i.head) = seen ? top + std::log(sum) : nothing<Acc>;
  }
};

template <class In, class Acc>
struct RowDot {
  static constexpr int threads = rowwise_threads, shared_bytes = 0;
  Rows dout, out, delta;
  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Item i = item_of(t, out.heads);
    const bool here = i.row < out.tokens;  // the same for all lanes of a warp
    double dot = 0;
    for (Index c = i.lane; here && c < out.channels; c += lanes)
      dot += static_cast<double>(In::value(at<const typename In::Stored>(dout, i.row, i.head)[c])) *
             static_cast<double>(at<const Acc>(out, i.row, i.head)[c]);
    for (int mask = lanes / 2; mask > 0; mask /= 2) dot += t.shuffle_xor(dot, mask);
    if (here && i.lane == 0) *at<Acc>(delta, i.row, i.head) = static_cast<Acc>(dot);
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
    const Index n = t.job() * rowwise_threads + t.index();
    constexpr double unit = 1 / simt::fixed_scale<Acc>;
    if (received != nullptr && n < into.tokens * into.heads)
      *at<Acc>(into, n / into.heads, n % into.heads) += static_cast<Acc>(static_cast<double>(received[n]) * unit);
    if (map != nullptr && n < count) cells[n] += static_cast<double>(map[n]) * unit;
  }
};

}  // namespace annulus::cuda

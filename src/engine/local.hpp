#pragma once
#include <algorithm>
#include <utility>

#include "annulus/engine/attention.hpp"

namespace annulus {

struct Attention::Local {
  Array q_array, k_array, v_array, block_array;
  Rows q;
  KeyValue kv;
  Rows block;  // K and V side by side, as they travel; absent, all but its shape, where nobody else is given them
};

// Work is cut at multiples of this many query rows, which every kernel's own blocks divide.
inline constexpr Index row_grain = 192;

// Computes a step's tiles a few at a time, and looks after the exchange and the progress in between.
template <class Compute>
void Attention::in_batches(const Step& step, double operations_per_pair, Pending& pending, const Compute& compute) {
  const Index heads = std::max<Index>(1, machine_.kernel.problem().query_heads);
  const double most_pairs = machine_.operations_per_batch / (operations_per_pair * static_cast<double>(heads));
  std::vector<Tile> batch;
  Index batch_pairs = 0;
  const auto flush = [&] {
    if (batch.empty()) return;
    {
      const Timeline::Span span(machine_.timeline, "compute", step.origin());
      compute(std::span<const Tile>(batch));
      machine_.device.pace();
    }
    if (machine_.progress) machine_.progress(batch_pairs * heads);
    batch.clear();
    batch_pairs = 0;
    pending.poll();
  };
  for (const Tile& tile : step.tiles) {
    const double row_pairs = static_cast<double>(tile.pairs()) / static_cast<double>(tile.q.count());
    const Index rows = std::max<Index>(1, static_cast<Index>(most_pairs / row_pairs) / row_grain) * row_grain;
    for (Index row = tile.q.begin; row < tile.q.end; row += rows) {
      const Tile part = tile.q.count() <= rows ? tile : cut(tile, {row, row + rows});
      if (part.q.empty()) continue;
      batch.push_back(part);
      batch_pairs += part.pairs();
      if (static_cast<double>(batch_pairs) >= most_pairs) flush();
    }
  }
  flush();
}

// Computes a step's tiles: in one go where the kernel pauses by itself, so that it packs and loads what it must only once,
// else in batches.
template <class Compute>
void Attention::compute_step(const Step& step, double operations_per_pair, Pending& pending, const Compute& compute) {
  Kernel& kernel = machine_.kernel;
  const Index heads = kernel.problem().query_heads;
  Index pairs = 0, reported = 0;
  for (const Tile& tile : step.tiles) pairs += tile.pairs() * heads;
  const auto pause = [&](double done) {
    pending.poll();
    const Index now = std::clamp(static_cast<Index>(done * static_cast<double>(pairs)), reported, pairs);
    if (machine_.progress) machine_.progress(now - std::exchange(reported, now));
  };
  if (!kernel.pause_with(pause)) {
    in_batches(step, operations_per_pair, pending, compute);
    return;
  }
  const struct NoLonger {
    Kernel& kernel;
    ~NoLonger() { kernel.pause_with({}); }
  } no_longer{kernel};
  {
    const Timeline::Span span(machine_.timeline, "compute", step.origin());
    compute(std::span<const Tile>(step.tiles));
  }
  pause(1);
}

// last: the partial is to be finished too.
inline void Attention::forward_step(const Step& step, Pending& pending, const Rows& q, const KeyValue& kv,
                                    const Partial& into, bool last) {
  Kernel& kernel = machine_.kernel;
  const bool finishes = last && kernel.pause_with({});  // tiles will come in one call, which can finish
  compute_step(step, 2.0 * static_cast<double>(shape_.channels + shape_.value_channels), pending,
               [&](std::span<const Tile> tiles) {
                 if (finishes) kernel.forward_and_finish(tiles, q, kv, into);
                 else kernel.forward(tiles, q, kv, into);
               });
  if (last && !finishes) finish(into);
}

}  // namespace annulus

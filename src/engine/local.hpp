#pragma once
#include "annulus/engine/attention.hpp"

namespace annulus {

struct Attention::Local {
  Array q_array, block_array;
  Rows q, block;  // block: K and V side by side, as they travel
};

// Work is cut at multiples of this many query rows, which every kernel's own blocks divide.
inline constexpr Index row_grain = 192;

// Computes a step's tiles a few at a time, looking after the exchange and the progress in between.
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

}  // namespace annulus

#include "kernel/cuda/jobs.hpp"

#include <algorithm>
#include <numeric>
#include <set>

namespace annulus::cuda {
namespace {

// The key rows seen from below: a tile with the roles of queries and keys exchanged.
Tile turned(const Tile& t) {
  return {.q = t.k, .k = t.q, .band = {-t.band.hi, -t.band.lo}, .q_at = t.k_at, .k_at = t.q_at, .stride = t.stride};
}

struct Edge {
  Index row;
  bool opens;
  int tile;
};

}  // namespace

JobTable make_jobs(std::span<const Tile> tiles, Side side, Index rows) {
  const auto range = [&](const Tile& t) { return side == Side::queries ? t.q : t.k; };
  std::vector<Edge> edges;
  for (std::size_t n = 0; n < tiles.size(); ++n) {
    if (tiles[n].q.empty() || tiles[n].k.empty()) continue;
    edges.push_back({range(tiles[n]).begin, true, static_cast<int>(n)});
    edges.push_back({range(tiles[n]).end, false, static_cast<int>(n)});
  }
  std::ranges::sort(edges, {}, &Edge::row);
  JobTable table;
  std::vector<Index> pairs;
  std::set<int> open;  // the tiles over the present row, in their order
  for (std::size_t e = 0; e < edges.size(); ++e) {
    if (edges[e].opens) {
      open.insert(edges[e].tile);
    } else {
      open.erase(edges[e].tile);
    }
    if (open.empty() || e + 1 == edges.size() || edges[e + 1].row == edges[e].row) continue;
    const auto first = static_cast<Index>(table.tiles_of.size());
    table.tiles_of.insert(table.tiles_of.end(), open.begin(), open.end());
    const auto last = static_cast<Index>(table.tiles_of.size());
    for (Index row = edges[e].row; row < edges[e + 1].row; row += rows) {
      const Job job{row, std::min(row + rows, edges[e + 1].row), first, last};
      Index work = 0;
      for (Index n = first; n < last; ++n) {
        const Tile& tile = tiles[static_cast<std::size_t>(table.tiles_of[static_cast<std::size_t>(n)])];
        const Tile part = cut(side == Side::queries ? tile : turned(tile), {job.begin, job.end});
        if (!part.q.empty()) work += part.pairs();
      }
      table.jobs.push_back(job);
      pairs.push_back(work);
    }
  }
  std::vector<std::size_t> order(pairs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return pairs[a] > pairs[b]; });
  std::vector<Job> sorted;
  for (const std::size_t n : order) sorted.push_back(table.jobs[n]);
  table.jobs = std::move(sorted);
  return table;
}

}  // namespace annulus::cuda

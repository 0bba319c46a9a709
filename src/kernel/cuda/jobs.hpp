#pragma once
#include <span>
#include <vector>

#include "annulus/geometry/range.hpp"

namespace annulus::cuda {

/// A block of rows that one group of threads computes alone, and the tiles that touch it: entries [first, last) of
/// JobTable::tiles_of. Every row of the block lies in all of these tiles.
struct Job {
  Index begin = 0, end = 0;
  Index first = 0, last = 0;
};

/// All work of a call. No two jobs share a row, so that nobody waits for anybody and no sum depends on timing; a row's
/// tiles keep their order. Jobs with most pairs come first, so that the last to finish are short.
struct JobTable {
  std::vector<Job> jobs;
  std::vector<int> tiles_of;
};

enum class Side { queries, keys };
/// Cuts the query (or key) rows of the tiles into jobs of at most `rows` rows.
JobTable make_jobs(std::span<const Tile> tiles, Side side, Index rows);

}  // namespace annulus::cuda

#pragma once
#include <numeric>
#include <span>

#include "annulus/base/error.hpp"
#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"

namespace annulus {

/// Tokens of some runs: the rows that an embedding fills. Throws Error (usage) when a run leaves [0, tokens).
inline Index rows_of(std::span<const Run> runs, Index tokens) {
  for (const Run& run : runs)
    require(run.count == 0 || (run.first >= 0 && run.at(run.count - 1) < tokens),
            "runs must lie in the input: first = ", run.first, ", count = ", run.count, ", stride = ", run.stride,
            ", tokens = ", tokens);
  return std::accumulate(runs.begin(), runs.end(), Index{0}, [](Index n, const Run& run) { return n + run.count; });
}

/// Throws Error (usage) unless the view is absent or CPU rows of this shape.
inline void require_rows(const Rows& rows, const char* name, Index tokens, Index heads, Index channels) {
  require(rows.absent() ||
              (rows.place == Place::cpu && rows.tokens == tokens && rows.heads == heads && rows.channels == channels),
          name, " must be CPU rows of [", tokens, ", ", heads, ", ", channels, "], not [", rows.tokens, ", ",
          rows.heads, ", ", rows.channels, "]");
}

}  // namespace annulus

#pragma once
#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// Beyond every position: a band that ends here does not end.
inline constexpr Index far = Index{1} << 60;

/// Half open: begin, ..., end - 1.
struct Range {
  Index begin = 0, end = 0;
  constexpr Index count() const { return std::max<Index>(0, end - begin); }
  constexpr bool empty() const { return end <= begin; }
  constexpr bool contains(Index i) const { return begin <= i && i < end; }
  constexpr bool operator==(const Range&) const = default;
};

constexpr Range overlap(Range a, Range b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }

/// Global token positions first, first + stride, ..., count of them. An HDF5 hyperslab, word for word.
struct Run {
  Index first = 0, count = 0, stride = 1;
  constexpr Index at(Index i) const { return first + i * stride; }
  constexpr bool operator==(const Run&) const = default;
};

/// Key k is visible from query q iff lo <= k - q <= hi. Bounds at +-far are open.
struct Band {
  Index lo = -far, hi = far;
  constexpr bool contains(Index distance) const { return lo <= distance && distance <= hi; }
  constexpr bool operator==(const Band&) const = default;
};

constexpr Band overlap(Band a, Band b) { return {std::max(a.lo, b.lo), std::min(a.hi, b.hi)}; }

/// Queries [q) see keys [k) where the band says so. Global indices.
struct Region {
  Range q, k;
  Band band;
};

/// One dense piece of work: local query rows, local key rows, and the band counted from the tile's corner:
/// row q.begin + i sees key k.begin + j iff band.lo <= j - i <= band.hi. No row and no key of a tile is unseen.
struct Tile {
  Range q, k;
  Band band;
  Index q_at = 0, k_at = 0;  ///< global index of the corner's query and key
  Index stride = 1;          ///< global distance between neighbouring rows, the same for queries and keys

  /// Every query sees every key: no test is needed inside.
  constexpr bool full() const { return band.lo <= -(q.count() - 1) && band.hi >= k.count() - 1; }
  /// The keys that query row i (counted from the corner) sees, counted from the corner.
  constexpr Range keys_of(Index i) const {
    return {std::max<Index>(0, i + std::max(band.lo, -far)), std::min(k.count(), i + std::min(band.hi, far) + 1)};
  }
  /// Number of visible (query, key) pairs: the exact work, in closed form.
  Index pairs() const;
};

/// The part of the run, counted in its own rows, whose positions lie in the window.
constexpr Range clip(const Run& run, Range window) {
  return {std::max<Index>(0, ceil_div(window.begin - run.first, run.stride)),
          std::min<Index>(run.count, ceil_div(window.end - run.first, run.stride))};
}

/// The part of the tile that lies in query rows `rows` (local rows, as tile.q), trimmed to what is seen.
/// Returns a tile with an empty q when nothing is left.
Tile cut(const Tile& tile, Range rows);

/// Sorted, disjoint, non-adjacent ranges that cover the same integers.
std::vector<Range> united(std::vector<Range> ranges);
/// What of `from` is not in `remove`; both as united() returns them.
std::vector<Range> without(std::span<const Range> from, std::span<const Range> remove);
Index count(std::span<const Range> ranges);

}  // namespace annulus

#include "annulus/geometry/range.hpp"

namespace annulus {
namespace {

// Sum over rows i of clamp(i + c, 0, keys): the pairs below a diagonal. Needs keys >= 1.
Index below_diagonal(Index rows, Index keys, Index c) {
  const Index start = std::clamp<Index>(1 - c, 0, rows);        // the first row that reaches a key
  const Index stop = std::clamp<Index>(keys - c, start, rows);  // the first row that reaches all
  const Index ramp = stop - start;
  return ramp * (start + c) + ramp * (ramp - 1) / 2 + (rows - stop) * keys;
}

}  // namespace

Index Tile::pairs() const {
  const Index rows = q.count(), keys = k.count();
  if (rows == 0 || keys == 0 || band.lo > band.hi) return 0;
  const Index hi = std::clamp(band.hi, -rows, keys), lo = std::clamp(band.lo, -rows, keys);
  return below_diagonal(rows, keys, hi + 1) - below_diagonal(rows, keys, lo);
}

Tile cut(const Tile& tile, Range rows) {
  const Range kept = overlap(tile.q, rows);
  Tile part = tile;
  part.q = {kept.begin, kept.begin};
  if (kept.empty()) return part;
  // rows counted from the old corner, then trimmed to those that see a key
  const Index i0 = std::max(kept.begin - tile.q.begin, tile.band.hi >= far ? 0 : -tile.band.hi);
  const Index i1 =
      std::min(kept.end - tile.q.begin, tile.band.lo <= -far ? tile.q.count() : tile.k.count() - tile.band.lo);
  if (i0 >= i1) return part;
  const Index j0 = tile.keys_of(i0).begin, j1 = tile.keys_of(i1 - 1).end;
  if (j0 >= j1) return part;
  part.q = {tile.q.begin + i0, tile.q.begin + i1};
  part.k = {tile.k.begin + j0, tile.k.begin + j1};
  if (part.band.lo > -far) part.band.lo += i0 - j0;
  if (part.band.hi < far) part.band.hi += i0 - j0;
  part.q_at += i0 * tile.stride;
  part.k_at += j0 * tile.stride;
  return part;
}

std::vector<Range> united(std::vector<Range> ranges) {
  std::erase_if(ranges, [](Range r) { return r.empty(); });
  std::ranges::sort(ranges, {}, &Range::begin);
  std::vector<Range> out;
  for (Range r : ranges) {
    if (!out.empty() && r.begin <= out.back().end) {
      out.back().end = std::max(out.back().end, r.end);
    } else {
      out.push_back(r);
    }
  }
  return out;
}

std::vector<Range> without(std::span<const Range> from, std::span<const Range> remove) {
  std::vector<Range> out;
  for (Range r : from) {
    for (Range gone : remove) {
      if (gone.end <= r.begin || gone.begin >= r.end) continue;
      if (gone.begin > r.begin) out.push_back({r.begin, gone.begin});
      r.begin = std::max(r.begin, gone.end);
      if (r.empty()) break;
    }
    if (!r.empty()) out.push_back(r);
  }
  return out;
}

Index count(std::span<const Range> ranges) {
  Index total = 0;
  for (Range r : ranges) total += r.count();
  return total;
}

}  // namespace annulus

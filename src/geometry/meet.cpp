#include "annulus/geometry/meet.hpp"

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

// Adds the tile in which one query run meets one key run inside one region, if any. `row` and `key` are the numbers of
// the runs' first rows.
void add_tile(const Run& q, Index row, const Run& k, Index key, const Region& see, Index s, std::vector<Tile>& out) {
  const Range i = clip(q, see.q), j = clip(k, see.k);
  if (i.empty() || j.empty()) return;
  const Index gap = k.at(j.begin) - q.at(i.begin);  // global distance at the corner
  Index lo = see.band.lo <= -far ? -far : ceil_div(see.band.lo - gap, s);
  Index hi = see.band.hi >= far ? far : floor_div(see.band.hi - gap, s);
  if (lo > hi) return;
  const Index i0 = std::max<Index>(0, -hi), i1 = std::min(i.count(), j.count() - lo);  // rows that see anything
  if (i0 >= i1) return;
  const Index j0 = std::max<Index>(0, i0 + lo), j1 = std::min(j.count(), i1 + hi);  // keys that anyone sees
  if (j0 >= j1) return;
  if (lo > -far) lo += i0 - j0;  // counted from the new corner
  if (hi < far) hi += i0 - j0;
  out.push_back({{row + i.begin + i0, row + i.begin + i1},
                 {key + j.begin + j0, key + j.begin + j1},
                 {lo, hi},
                 q.at(i.begin + i0),
                 k.at(j.begin + j0),
                 s});
}

}  // namespace

std::vector<Tile> meet(std::span<const Run> queries, std::span<const Run> keys, const Mask& mask) {
  std::vector<Tile> tiles;
  Index row = 0;
  for (const Run& q : queries) {
    if (q.count > 0) {
      const Range reach{q.first, q.at(q.count - 1) + 1};
      Index key = 0;
      for (const Run& k : keys) {
        require(q.stride == k.stride || q.count <= 1 || k.count <= 1,
                "query runs and key runs must have the same stride to meet: they are ", q.stride, " and ", k.stride);
        const Index stride = q.count > 1 ? q.stride : k.count > 1 ? k.stride : 1;
        if (k.count > 0)
          for (const Region& see : mask.near(reach))
            add_tile({q.first, q.count, stride}, row, {k.first, k.count, stride}, key, see, stride, tiles);
        key += k.count;
      }
    }
    row += q.count;
  }
  return tiles;
}

Index pairs(std::span<const Tile> tiles) {
  Index total = 0;
  for (const Tile& tile : tiles) total += tile.pairs();
  return total;
}

}  // namespace annulus

#include "plan/sight.hpp"

#include "annulus/base/error.hpp"
#include "plan/row_set.hpp"

namespace annulus {
namespace {

void clear(Sight& sight) {
  sight.pairs = 0;
  sight.forward_seconds = sight.backward_seconds = 0;
}

inline void add_full(Sight& sight, Index rows, Index keys) {
  sight.pairs += rows * keys;
  if (sight.paces == nullptr) return;
  sight.forward_seconds += sight.paces->forward.full(rows, keys);
  if (sight.backward) sight.backward_seconds += sight.paces->backward.full(rows, keys);
}

inline void add(Sight& sight, const Tile& tile) {
  if (tile.full()) return add_full(sight, tile.q.count(), tile.k.count());
  const Index pairs = tile.pairs();
  sight.pairs += pairs;
  if (sight.paces == nullptr) return;
  sight.forward_seconds += sight.paces->forward.cut(tile, pairs);
  if (sight.backward) sight.backward_seconds += sight.paces->backward.cut(tile, pairs);
}

// One run of each side, both inside one region: the tile of meet(), counted only.
inline void look_at_run(const Run& q, const Run& k, Index key, Band band, Sight& sight, RowSet& rows) {
  const Index gap = k.first - q.first, least = gap - (q.count - 1) * q.stride, most = gap + (k.count - 1) * k.stride;
  if (most < band.lo || least > band.hi) return;
  if (least >= band.lo && most <= band.hi) {
    add_full(sight, q.count, k.count);
    rows.add({key, key + k.count});
    return;
  }
  const Index stride = q.count > 1 ? q.stride : k.count > 1 ? k.stride : 1;
  const auto local = [&](Index bound, auto divide) { return stride == 1 ? bound - gap : divide(bound - gap, stride); };
  Index lo = band.lo <= -far ? -far : local(band.lo, ceil_div);
  Index hi = band.hi >= far ? far : local(band.hi, floor_div);
  if (lo > hi) return;
  const Index i0 = std::max<Index>(0, -hi), i1 = std::min(q.count, k.count - lo);
  if (i0 >= i1) return;
  const Index j0 = std::max<Index>(0, i0 + lo), j1 = std::min(k.count, i1 + hi);
  if (j0 >= j1) return;
  if (lo > -far) lo += i0 - j0;
  if (hi < far) hi += i0 - j0;
  add(sight, {{0, i1 - i0}, {0, j1 - j0}, {lo, hi}});
  rows.add({key + j0, key + j1});
}

}  // namespace

void look(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into) {
  clear(into);
  RowSet rows(into.rows);
  for (const Run& q : stay) {
    const auto near = mask.near({q.first, q.at(q.count - 1) + 1});
    Range hull{far, -far};  // of their keys: most runs of packed documents lie elsewhere
    for (const Region& see : near) hull = {std::min(hull.begin, see.k.begin), std::max(hull.end, see.k.end)};
    Index key = 0;
    for (const Run& k : travel) {
      require(q.stride == k.stride || q.count <= 1 || k.count <= 1,
              "query runs and key runs must have the same stride to meet: they are ", q.stride, " and ", k.stride);
      const bool elsewhere = k.first >= hull.end || k.at(k.count - 1) < hull.begin;
      for (const Region& see : elsewhere ? std::span<const Region>{} : near) {
        const Range i = clip(q, see.q), j = clip(k, see.k);
        if (i.empty() || j.empty()) continue;
        look_at_run({q.at(i.begin), i.count(), q.stride}, {k.at(j.begin), j.count(), k.stride}, key + j.begin, see.band,
                    into, rows);
      }
      key += k.count;
    }
  }
  rows.finish();
}

void look_at_ordinary(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into) {
  clear(into);
  RowSet rows(into.rows);
  const Band band = mask.regions().front().band;
  Index key = 0;
  for (const Run& k : travel) {
    for (const Run& q : stay) look_at_run(q, k, key, band, into, rows);
    key += k.count;
  }
  rows.finish();
}

bool is_ordinary(const Partition& stay, const Partition& travel, const Mask& mask) {
  if (mask.regions().size() != 1) return false;
  const Region& all = mask.regions().front();
  if (all.q != Range{0, mask.queries()} || all.k != Range{0, mask.keys()}) return false;
  Index stride = 0;  // the one of all runs that have one
  for (const Partition* partition : {&stay, &travel})
    for (Rank r = 0; r < partition->ranks(); ++r)
      for (const Run& run : partition->runs(r)) {
        if (run.count <= 1) continue;
        if (stride != 0 && run.stride != stride) return false;
        stride = run.stride;
      }
  return true;
}

bool inside(std::span<const Range> inner, std::span<const Range> outer) {
  auto around = outer.begin();
  for (const Range& part : inner) {
    while (around != outer.end() && around->end < part.end) ++around;
    if (around == outer.end() || around->begin > part.begin) return false;
  }
  return true;
}

}  // namespace annulus

#include "plan/sight.hpp"

#include "annulus/geometry/meet.hpp"

namespace annulus {
namespace {

void include(std::vector<Range>& rows, Range more) {
  if (more.empty()) return;
  if (!rows.empty() && rows.back() == more) return;
  rows.push_back(more);
}

// Brings rows that were included run after run into the form of united(), mostly without doing anything.
void unite(std::vector<Range>& rows) {
  for (std::size_t i = 1; i < rows.size(); ++i)
    if (rows[i].begin <= rows[i - 1].end) {
      rows = united(std::move(rows));
      return;
    }
}

// One run of each side inside one region that holds both: the tile of meet(), counted only.
void look_at_run(const Run& q, const Run& k, Index key, Band band, Sight& into) {
  const Index gap = k.first - q.first, least = gap - (q.count - 1) * q.stride, most = gap + (k.count - 1) * k.stride;
  if (most < band.lo || least > band.hi) return;
  if (least >= band.lo && most <= band.hi) {
    into.pairs += q.count * k.count;
    include(into.rows, {key, key + k.count});
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
  into.pairs += Tile{{0, i1 - i0}, {0, j1 - j0}, {lo, hi}}.pairs();
  include(into.rows, {key + j0, key + j1});
}

}  // namespace

void look(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into) {
  into.pairs = 0;
  into.rows.clear();
  for (const Tile& tile : meet(stay, travel, mask)) {
    into.pairs += tile.pairs();
    include(into.rows, tile.k);
  }
  unite(into.rows);
}

void look_at_ordinary(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into) {
  into.pairs = 0;
  into.rows.clear();
  const Band band = mask.regions().front().band;
  Index key = 0;
  for (const Run& k : travel) {
    for (const Run& q : stay) look_at_run(q, k, key, band, into);
    key += k.count;
  }
  unite(into.rows);
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

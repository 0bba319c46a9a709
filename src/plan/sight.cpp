#include "plan/sight.hpp"

#include "annulus/geometry/meet.hpp"

namespace annulus {
namespace {

// Collects rows; those that come in order are united at once, and the others at the end.
class RowSet {
 public:
  explicit RowSet(std::vector<Range>& into) : into_(into) { into_.clear(); }
  void add(Range more) {
    if (more.empty()) return;
    if (more.begin >= open_.begin && more.begin <= open_.end && !open_.empty()) {
      open_.end = std::max(open_.end, more.end);
      return;
    }
    if (!open_.empty()) into_.push_back(open_);
    open_ = more;
  }
  void finish() {
    if (!open_.empty()) into_.push_back(open_);
    for (std::size_t i = 1; i < into_.size(); ++i)
      if (into_[i].begin <= into_[i - 1].end) {
        into_ = united(std::move(into_));
        return;
      }
  }

 private:
  std::vector<Range>& into_;
  Range open_;
};

// One run of each side inside one region that holds both: the tile of meet(), counted only.
inline void look_at_run(const Run& q, const Run& k, Index key, Band band, Index& pairs, RowSet& rows) {
  const Index gap = k.first - q.first, least = gap - (q.count - 1) * q.stride, most = gap + (k.count - 1) * k.stride;
  if (most < band.lo || least > band.hi) return;
  if (least >= band.lo && most <= band.hi) {
    pairs += q.count * k.count;
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
  pairs += Tile{{0, i1 - i0}, {0, j1 - j0}, {lo, hi}}.pairs();
  rows.add({key + j0, key + j1});
}

}  // namespace

void look(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into) {
  into.pairs = 0;
  RowSet rows(into.rows);
  for (const Tile& tile : meet(stay, travel, mask)) {
    into.pairs += tile.pairs();
    rows.add(tile.k);
  }
  rows.finish();
}

void look_at_ordinary(std::span<const Run> stay, std::span<const Run> travel, const Mask& mask, Sight& into) {
  Index pairs = 0;
  RowSet rows(into.rows);
  const Band band = mask.regions().front().band;
  Index key = 0;
  for (const Run& k : travel) {
    for (const Run& q : stay) look_at_run(q, k, key, band, pairs, rows);
    key += k.count;
  }
  into.pairs = pairs;
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

#include "plan/spans.hpp"

#include <algorithm>
#include <numeric>

namespace annulus {
namespace {

bool same_shape(std::span<const Run> a, std::span<const Run> b) {
  return std::ranges::equal(a, b,
                            [](const Run& x, const Run& y) { return x.count == y.count && x.stride == y.stride; });
}

// Whether the runs move on from a to b as they do from b to c.
bool even(std::span<const Run> a, std::span<const Run> b, std::span<const Run> c) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (b[i].first - a[i].first != c[i].first - b[i].first) return false;
  return true;
}

enum class Seen { nothing_before, nothing_after, whole, cut };

Seen seen(const Run& q, const Run& k, Index gap, Band band) {
  const Index least = gap - (q.count - 1) * q.stride, most = gap + (k.count - 1) * k.stride;
  if (most < band.lo) return Seen::nothing_before;
  if (least > band.hi) return Seen::nothing_after;
  return least >= band.lo && most <= band.hi ? Seen::whole : Seen::cut;
}

}  // namespace

Spans::Spans(const Planner& planner, const StridedTiles& tiles, bool lists)
    : planner_(planner),
      tiles_(tiles),
      seats_(planner.seats()),
      inner_(planner.grid().inner),
      stride_(planner.grid().outer > planner.grid().inner ? planner.grid().inner : 1) {
  if (inner_ == 1) stride_ = 1, inner_ = seats_;    // a ring of rings of one is a ring
  constexpr Index few = 16, most = Index{1} << 26;  // of the seats of a step; of all that is listed
  if (lists && planner.looks() < Index{planner.steps()} * seats_ / few && planner.looks() < most) {
    list_users();
    return;
  }
  stay_ = stretches(planner.stays(), [&](Index a, Index b) { return tiles_.same_rows_stay(a, b); });
  travel_ = stretches(planner.travels(), [&](Index a, Index b) { return tiles_.same_rows_travel(a, b); });
}

// A sink makes every step one in which somebody works, and nearly nobody does.
void Spans::list_users() {
  const auto for_all = [&](const auto& each) {
    for (Rank seat = 0; seat < seats_; ++seat)
      for (const Range& seen : planner_.reach(seat))
        for (auto origin = static_cast<Rank>(seen.begin); origin < static_cast<Rank>(seen.end); ++origin)
          each(seat, static_cast<std::size_t>(step_of(planner_.grid(), seat, origin)));
  };
  first_.resize(static_cast<std::size_t>(seats_) + 2);
  for_all([&](Rank, std::size_t step) { ++first_[step + 2]; });
  std::partial_sum(first_.begin(), first_.end(), first_.begin());
  users_.resize(first_.back());
  for_all([&](Rank seat, std::size_t step) { users_[first_[step + 1]++] = seat; });
}

template <class Same>
std::vector<int> Spans::stretches(const Partition& partition, const Same& same_rows) const {
  std::vector<int> lengths(static_cast<std::size_t>(seats_), 1);
  if (!planner_.ordinary() && !tiles_.serves()) return lengths;  // every look is its own
  for (Rank seat = seats_ - 1 - stride_; seat >= 0; --seat) {
    const auto here = partition.runs(seat), next = partition.runs(seat + stride_);
    if (!same_shape(here, next)) continue;
    if (!planner_.ordinary() && !std::ranges::equal(here, next, same_rows, &Run::first, &Run::first)) continue;
    const auto place = static_cast<std::size_t>(seat), after = place + static_cast<std::size_t>(stride_);
    const bool goes_on = lengths[after] > 1 && even(here, next, partition.runs(seat + 2 * stride_));
    lengths[place] = goes_on ? lengths[after] + 1 : 2;
  }
  return lengths;
}

bool Spans::alike(const Span& span) const {
  if (span.count == 1) return true;
  const int on = (span.count - 1) * span.stride;
  const Band band = planner_.seen().regions().front().band;
  const auto q0 = planner_.stays().runs(span.seat), q1 = planner_.stays().runs(span.seat + on);
  const auto k0 = planner_.travels().runs(span.origin), k1 = planner_.travels().runs(span.origin + on);
  for (std::size_t q = 0; q < q0.size(); ++q)
    for (std::size_t k = 0; k < k0.size(); ++k) {
      const Index first = k0[k].first - q0[q].first, last = k1[k].first - q1[q].first;
      if (first == last) continue;
      if (!planner_.ordinary()) return false;
      const Seen what = seen(q0[q], k0[k], first, band);
      if (what == Seen::cut || what != seen(q0[q], k0[k], last, band)) return false;
    }
  return true;
}

}  // namespace annulus

#include "plan/strided.hpp"

#include <algorithm>
#include <tuple>

#include "plan/row_set.hpp"

namespace annulus {
namespace {

constexpr std::size_t most_tiles = std::size_t{1} << 20;  // some 50 MB: beyond, regions have little in common

// The stride of all runs, if they begin within it and go on to the end; else 0.
Index stride_of(const Partition& partition) {
  Index stride = 0;
  for (Rank rank = 0; rank < partition.ranks(); ++rank)
    for (const Run& run : partition.runs(rank)) {
      if (stride == 0) stride = run.stride;
      if (run.stride != stride || run.first >= stride || run.count != ceil_div(partition.tokens() - run.first, stride))
        return 0;
    }
  return stride;
}

std::vector<Index> sorted_set(std::vector<Index> values) {
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

}  // namespace

StridedTiles::StridedTiles(const Partition& stay, const Partition& travel, const Mask& mask, const Paces* paces,
                           bool backward) {
  constexpr std::size_t few = 4;
  stride_ = stride_of(stay);
  if (stride_ <= 1 || stride_ != stride_of(travel) || mask.regions().size() < few) return;
  const Range queries{0, stay.tokens()}, keys{0, travel.tokens()};
  if (std::ranges::any_of(mask.regions(),
                          [&](const Region& r) { return overlap(r.q, queries) != r.q || overlap(r.k, keys) != r.k; }))
    return;
  Sight priced;
  priced.paces = paces;
  priced.backward = backward;
  std::map<std::tuple<Index, Index, Index, std::uint32_t>, std::uint32_t> kinds;
  for (const Region& region : mask.regions()) {
    const auto row = [&](Index position) { return position / stride_; };
    const std::uint32_t band = band_at(region.band);
    const auto [kind, fresh] =
        kinds.try_emplace({row(region.q.end) - row(region.q.begin), row(region.k.end) - row(region.k.begin),
                           row(region.k.begin) - row(region.q.begin), band},
                          static_cast<std::uint32_t>(tiles_.size()));
    if (fresh) add_kind(region, bands_[band], priced);
    if (tiles_.size() > most_tiles) {
      places_.clear();
      return;
    }
    const auto edge = [&](Index position) { return static_cast<Edge>(position % stride_); };
    places_.push_back({edge(region.q.begin), edge(region.q.end), edge(region.k.begin), edge(region.k.end), kind->second,
                       band, row(region.k.begin)});
    for (const Index position : {region.q.begin, region.q.end}) stay_edges_.push_back(position % stride_);
    for (const Index position : {region.k.begin, region.k.end}) travel_edges_.push_back(position % stride_);
  }
  stay_edges_ = sorted_set(std::move(stay_edges_));
  travel_edges_ = sorted_set(std::move(travel_edges_));
  gap_class_.resize(bands_.size());
}

std::ptrdiff_t StridedTiles::class_of(const std::vector<Index>& edges, Index first) {
  return std::ranges::upper_bound(edges, first) - edges.begin();
}

std::uint32_t StridedTiles::band_at(Band band) {
  const auto known = std::ranges::find(bands_, band, &Gaps::band);
  if (known != bands_.end()) return static_cast<std::uint32_t>(known - bands_.begin());
  std::vector<Index> from{1 - stride_};
  const auto passes = [&](Index gap) {  // where gap % stride_ is that of the bound
    const Index least = gap - floor_div(gap + stride_ - 1, stride_) * stride_;
    for (const Index at : {least, least + stride_})
      if (at > 1 - stride_ && at < stride_) from.push_back(at);
  };
  if (band.lo > -far) passes(band.lo);
  if (band.hi < far) passes(band.hi + 1);
  bands_.push_back({band, sorted_set(std::move(from))});
  return static_cast<std::uint32_t>(bands_.size() - 1);
}

void StridedTiles::add_kind(const Region& region, const Gaps& gaps, const Sight& priced) {
  for (std::size_t gap = 0; gap < most_gaps; ++gap)
    for (std::uint32_t way = 0; way < ways; ++way)
      tiles_.push_back(gap < gaps.from.size() ? meet(region, way, gaps.from[gap], priced) : Met{});
}

// way: whether first is below the edges, as in look().
StridedTiles::Met StridedTiles::meet(const Region& region, std::uint32_t way, Index gap, const Sight& priced) const {
  const auto rows = [&](Range positions, std::uint32_t begin, std::uint32_t end) {
    return Range{positions.begin / stride_ + begin, positions.end / stride_ + end};
  };
  const Range i = rows(region.q, way & 1U, way >> 1U & 1U), j = rows(region.k, way >> 2U & 1U, way >> 3U & 1U);
  if (i.empty() || j.empty()) return {};
  const Run q{i.begin * stride_, i.count(), stride_}, k{j.begin * stride_ + gap, j.count(), stride_};
  const auto around = [](const Run& run) { return Range{run.first, run.at(run.count - 1) + 1}; };
  Sight sight = priced;
  const Range queries = around(q), keys = around(k);
  annulus::look({&q, 1}, {&k, 1}, Mask::of({{queries, keys, region.band}}, queries.end, keys.end, ""), sight);
  if (sight.none()) return {};
  const Index begin = j.begin - region.k.begin / stride_;
  return {sight.pairs,
          {sight.rows.front().begin + begin, sight.rows.front().end + begin},
          sight.forward_seconds,
          sight.backward_seconds};
}

void StridedTiles::look(std::span<const Run> stay, std::span<const Run> travel, Sight& into) {
  into.pairs = 0;
  into.forward_seconds = into.backward_seconds = 0;
  RowSet rows(into.rows);
  const bool once = stay.size() == 1;
  if (!once) held_.assign(travel.size() * places_.size(), Range{});
  for (const Run& q : stay) {
    const auto a = static_cast<Edge>(q.first);
    Range* held = held_.data();
    Index key = 0;
    for (const Run& k : travel) {
      const auto b = static_cast<Edge>(k.first);
      for (std::size_t i = 0; i < bands_.size(); ++i)
        gap_class_[i] = static_cast<std::uint32_t>(class_of(bands_[i].from, k.first - q.first) - 1) * ways;
      for (const Place& place : places_) {
        const auto below = [](Edge first, Edge edge) { return static_cast<std::uint32_t>(first < edge); };
        const std::uint32_t way = below(a, place.stay_begin) | below(a, place.stay_end) << 1U |
                                  below(b, place.travel_begin) << 2U | below(b, place.travel_end) << 3U;
        const Met& met = tiles_[place.kind + gap_class_[place.band] + way];
        Range* const before = once ? nullptr : held++;
        if (met.pairs == 0) continue;
        into.pairs += met.pairs;
        into.forward_seconds += met.forward_seconds;
        into.backward_seconds += met.backward_seconds;
        const Range seen{key + place.travel_row + met.rows.begin, key + place.travel_row + met.rows.end};
        if (once || (!before->empty() && (seen.begin > before->end || seen.end < before->begin))) {
          rows.add(seen);
        } else if (before->empty()) {
          *before = seen;
        } else {
          *before = {std::min(before->begin, seen.begin), std::max(before->end, seen.end)};
        }
      }
      key += k.count;
    }
  }
  for (const Range& seen : held_) rows.add(seen);
  held_.clear();
  rows.finish();
}

}  // namespace annulus

#include "plan/reach.hpp"

#include <algorithm>

namespace annulus {
namespace {

// Which seats own the positions of an interval.
class Owners {
 public:
  explicit Owners(const Partition& partition) {
    for (Rank r = 0; r < partition.ranks(); ++r)
      for (const Run& run : partition.runs(r)) {
        dense_ = dense_ && (run.stride == 1 || run.count == 1);
        if (run.count > 0) shards_.push_back({run.first, r});
      }
    std::ranges::sort(shards_, {}, &Shard::first);
    // contiguous: seats only rise along the positions; zigzag: they rise and then fall
    const auto falls = [](const Shard& a, const Shard& b) { return b.seat < a.seat; };
    const auto rises = [](const Shard& a, const Shard& b) { return b.seat > a.seat; };
    const auto peak = std::ranges::adjacent_find(shards_, falls);
    ordered_ = dense_ && std::ranges::adjacent_find(peak, shards_.end(), rises) == shards_.end();
    peak_ = peak == shards_.end() ? shards_.size() : static_cast<std::size_t>(peak - shards_.begin()) + 1;
  }

  bool ordered() const { return ordered_; }

  // Seats among which are the owners of [positions); needs order.
  Range of(Range positions) const {
    if (positions.empty() || shards_.empty()) return {};
    const auto at = [&](Index position) {
      const auto after = std::ranges::upper_bound(shards_, position, {}, &Shard::first);
      return static_cast<std::size_t>(std::max<std::ptrdiff_t>(1, after - shards_.begin())) - 1;
    };
    const std::size_t begin = at(positions.begin), end = at(positions.end - 1);
    const Rank a = shards_[begin].seat, b = shards_[end].seat;
    const Rank most = begin < peak_ && end >= peak_ ? shards_[peak_ - 1].seat : std::max(a, b);
    return {std::min(a, b), most + 1};
  }

 private:
  struct Shard {
    Index first;
    Rank seat;
  };
  bool dense_ = true, ordered_ = false;
  std::vector<Shard> shards_;
  std::size_t peak_ = 0;  // shards before it rise
};

}  // namespace

std::vector<std::vector<Range>> find_reach(const Partition& queries, const Partition& keys, const Mask& mask) {
  const Owners owners(keys);
  std::vector<std::vector<Range>> reach(static_cast<std::size_t>(queries.ranks()));
  for (Rank r = 0; r < queries.ranks(); ++r) {
    auto& mine = reach[static_cast<std::size_t>(r)];
    if (!owners.ordered()) mine = {{0, keys.ranks()}};
    if (!owners.ordered()) continue;
    for (const Run& run : queries.runs(r)) {
      if (run.count == 0) continue;
      const Range span{run.first, run.at(run.count - 1) + 1};
      for (const Region& see : mask.near(span)) {
        const Range q = overlap(span, see.q);
        if (q.empty()) continue;
        const Range band{see.band.lo <= -far ? -far : q.begin + see.band.lo,
                         see.band.hi >= far ? far : q.end + see.band.hi};
        mine.push_back(owners.of(overlap(see.k, band)));
      }
    }
    mine = united(std::move(mine));
  }
  return reach;
}

}  // namespace annulus

#include "plan/reach.hpp"

#include <algorithm>

namespace annulus {
namespace {

// Which seats own the positions of an interval.
class Owners {
 public:
  explicit Owners(const Partition& partition) : ranks_(partition.ranks()) {
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

  // Seats among which are the owners of all these positions.
  std::vector<Range> of(const std::vector<Range>& positions) const {
    std::vector<Range> seats;
    std::size_t listed = 0;
    for (const Range& part : positions) {
      if (shards_.empty()) break;
      const std::size_t begin = shard_at(part.begin), end = shard_at(part.end - 1);
      listed += end - begin + 1;
      if (ordered_) {
        seats.push_back(between(begin, end));
        continue;
      }
      if (!dense_ || listed > static_cast<std::size_t>(ranks_) / 2) return {{0, ranks_}};  // a list would be longer
      for (std::size_t i = begin; i <= end; ++i) seats.push_back({shards_[i].seat, shards_[i].seat + 1});
    }
    return united(std::move(seats));
  }

 private:
  std::size_t shard_at(Index position) const {
    const auto after = std::ranges::upper_bound(shards_, position, {}, &Shard::first);
    return static_cast<std::size_t>(std::max<std::ptrdiff_t>(1, after - shards_.begin())) - 1;
  }
  // The owners of neighbouring shards; needs order.
  Range between(std::size_t begin, std::size_t end) const {
    const Rank a = shards_[begin].seat, b = shards_[end].seat;
    const Rank most = begin < peak_ && end >= peak_ ? shards_[peak_ - 1].seat : std::max(a, b);
    return {std::min(a, b), most + 1};
  }
  struct Shard {
    Index first;
    Rank seat;
  };
  int ranks_;
  bool dense_ = true, ordered_ = false;
  std::vector<Shard> shards_;
  std::size_t peak_ = 0;  // shards before it rise
};

}  // namespace

std::vector<std::vector<Range>> find_reach(const Partition& queries, const Partition& keys, const Mask& mask) {
  const Owners owners(keys);
  std::vector<std::vector<Range>> reach(static_cast<std::size_t>(queries.ranks()));
  std::vector<Range> positions;
  for (Rank r = 0; r < queries.ranks(); ++r) {
    positions.clear();
    for (const Run& run : queries.runs(r)) {
      if (run.count == 0) continue;
      const Range span{run.first, run.at(run.count - 1) + 1};
      for (const Region& see : mask.near(span)) {
        const Range q = overlap(span, see.q);
        if (q.empty()) continue;
        const Range band{see.band.lo <= -far ? -far : q.begin + see.band.lo,
                         see.band.hi >= far ? far : q.end + see.band.hi};
        positions.push_back(overlap(see.k, band));
      }
    }
    positions = united(std::move(positions));
    reach[static_cast<std::size_t>(r)] = owners.of(positions);
  }
  return reach;
}

}  // namespace annulus

#include "annulus/geometry/partition.hpp"

#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"

namespace annulus {
namespace {

Run block(Index tokens, Index blocks, Index i) {
  // i * tokens would overflow for 2^60 tokens; this cuts evenly without the product
  const Index base = tokens / blocks, extra = tokens % blocks;
  const Index begin = i * base + std::min(i, extra);
  return {begin, base + (i < extra ? 1 : 0), 1};
}

std::vector<std::vector<Run>> empty_shards(int ranks) {
  require(ranks >= 1, "there must be at least one rank: ranks = ", ranks);
  return std::vector<std::vector<Run>>(static_cast<std::size_t>(ranks));
}

void add_run(std::vector<Run>& runs, Run run) {  // neighbours grow together
  if (run.count == 0) return;
  if (!runs.empty() && runs.back().stride == 1 && run.stride == 1 && runs.back().at(runs.back().count) == run.first) {
    runs.back().count += run.count;
  } else {
    runs.push_back(run);
  }
}

// Deals blocks of tokens, largest work first, each to the rank that would finish it earliest.
Partition deal(const Mask& mask, int ranks, std::span<const double> weights, Index blocks_per_rank) {
  const Index blocks = blocks_per_rank * ranks;
  const Run all_keys{0, mask.keys(), 1};
  std::vector<double> work(static_cast<std::size_t>(blocks));
  for (Index b = 0; b < blocks; ++b) {
    const Run rows = block(mask.queries(), blocks, b);
    work[static_cast<std::size_t>(b)] = static_cast<double>(pairs(meet({&rows, 1}, {&all_keys, 1}, mask)));
  }
  std::vector<std::size_t> order(work.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t b) { return work[b]; });
  const double total_weight = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> load(weights.size(), 0.0);
  std::vector<Index> room(weights.size());
  for (std::size_t r = 0; r < weights.size(); ++r) {  // tokens in proportion too: memory is shared out like work
    const double share = static_cast<double>(blocks) * weights[r] / total_weight;
    room[r] = static_cast<Index>(std::ceil(share - 1e-9));
  }
  std::vector<std::vector<std::size_t>> dealt(weights.size());
  for (std::size_t b : order) {
    std::size_t best = weights.size();
    double earliest = 0;
    for (std::size_t r = 0; r < weights.size(); ++r) {
      const double done = (load[r] + work[b]) / weights[r];
      if (room[r] > 0 && (best == weights.size() || done < earliest)) best = r, earliest = done;
    }
    --room[best];
    load[best] += work[b];
    dealt[best].push_back(b);
  }
  auto runs = empty_shards(ranks);
  for (std::size_t r = 0; r < dealt.size(); ++r) {
    std::ranges::sort(dealt[r]);
    for (std::size_t b : dealt[r]) add_run(runs[r], block(mask.queries(), blocks, static_cast<Index>(b)));
  }
  return Partition::of(mask.queries(), runs, "balanced");
}

// How far from ideal (1.0) a partition is: the time of a ring in which everybody waits for the slowest in each step,
// over the ideal time, with a penalty for an uneven total, which no overlap of steps could mend.
double ring_imbalance(const Partition& partition, const Mask& mask, std::span<const double> weights) {
  const int ranks = partition.ranks();
  std::vector<double> total(weights.size(), 0.0);
  double path = 0;
  for (int s = 0; s < ranks; ++s) {
    double slowest = 0;
    for (Rank r = 0; r < ranks; ++r) {
      const Rank origin = (r - s + ranks) % ranks;
      const auto work = static_cast<double>(pairs(meet(partition.runs(r), partition.runs(origin), mask)));
      const double time = work / weights[static_cast<std::size_t>(r)];
      total[static_cast<std::size_t>(r)] += time;
      slowest = std::max(slowest, time);
    }
    path += slowest;
  }
  const double ideal = static_cast<double>(mask.pairs()) / std::accumulate(weights.begin(), weights.end(), 0.0);
  constexpr double penalty = 4;
  return ideal > 0 ? path / ideal + penalty * (std::ranges::max(total) / ideal - 1) : 1.0;
}

// Whether two runs own a token together: a common position is first + i stride for both, inside both.
bool meet_somewhere(const Run& a, const Run& b) {
  const Index begin = std::max(a.first, b.first), end = std::min(a.at(a.count - 1), b.at(b.count - 1));
  const Index common = std::gcd(a.stride, b.stride);
  if (begin > end || (a.first - b.first) % common != 0) return false;
  const Run &wide = a.stride >= b.stride ? a : b, &narrow = a.stride >= b.stride ? b : a;
  Index at = wide.at(std::max<Index>(0, ceil_div(begin - wide.first, wide.stride)));
  for (Index tried = 0; at <= end && tried < narrow.stride / common; ++tried, at += wide.stride)
    if ((at - narrow.first) % narrow.stride == 0) return true;
  return false;
}

// Whether no token is owned twice. Runs of one stride need a look at their neighbours only.
bool disjoint(const std::vector<std::vector<Run>>& shards) {
  std::map<Index, std::vector<Run>> by_stride;
  for (const auto& mine : shards)
    for (const Run& run : mine) by_stride[run.count == 1 ? 1 : run.stride].push_back(run);
  for (auto& [stride, runs] : by_stride) {
    std::ranges::sort(runs, {}, [s = stride](const Run& run) { return std::pair(run.first % s, run.first); });
    for (std::size_t i = 1; i < runs.size(); ++i)
      if (meet_somewhere(runs[i - 1], runs[i])) return false;
  }
  for (auto one = by_stride.begin(); one != by_stride.end(); ++one)
    for (auto other = std::next(one); other != by_stride.end(); ++other)
      for (const Run& a : one->second)
        for (const Run& b : other->second)
          if (meet_somewhere(a, b)) return false;
  return true;
}

}  // namespace

Partition::Partition(Index tokens, const std::vector<std::vector<Run>>& runs, std::string name)
    : tokens_(tokens), first_{0}, name_(std::move(name)) {
  for (const auto& mine : runs) {
    runs_.insert(runs_.end(), mine.begin(), mine.end());
    first_.push_back(runs_.size());
    rows_.push_back(
        std::accumulate(mine.begin(), mine.end(), Index{0}, [](Index n, const Run& r) { return n + r.count; }));
  }
}

Partition Partition::contiguous(Index tokens, int ranks) {
  auto runs = empty_shards(ranks);
  for (int r = 0; r < ranks; ++r) add_run(runs[static_cast<std::size_t>(r)], block(tokens, ranks, r));
  return {tokens, runs, "contiguous"};
}

Partition Partition::zigzag(Index tokens, int ranks) {
  auto runs = empty_shards(ranks);
  const Index blocks = Index{2} * ranks;
  for (int r = 0; r < ranks; ++r) {
    add_run(runs[static_cast<std::size_t>(r)], block(tokens, blocks, r));
    add_run(runs[static_cast<std::size_t>(r)], block(tokens, blocks, blocks - 1 - r));
  }
  return {tokens, runs, "zigzag"};
}

Partition Partition::striped(Index tokens, int ranks) {
  auto runs = empty_shards(ranks);
  for (int r = 0; r < ranks; ++r)
    add_run(runs[static_cast<std::size_t>(r)], {r, std::max<Index>(0, ceil_div(tokens - r, ranks)), ranks});
  return {tokens, runs, "striped"};
}

Partition Partition::balanced(const Mask& mask, int ranks, std::span<const double> given) {
  require(given.empty() || given.size() == static_cast<std::size_t>(ranks),
          "there must be one weight per rank: weights = ", given.size(), ", ranks = ", ranks);
  std::vector<double> weights(given.begin(), given.end());
  if (weights.empty()) weights.assign(empty_shards(ranks).size(), 1.0);
  for (double w : weights) require(w > 0 && w < 1e9, "a rank's weight must be positive and finite: it is ", w);
  constexpr double good_enough = 1.02;
  constexpr int most_ranks_tried = 64;  // the trial costs ranks^2 meetings
  std::optional<Partition> best;
  double least = 0;
  for (Index per_rank : {2, 4, 8, 16, 32}) {
    Partition partition = deal(mask, ranks, weights, per_rank);
    if (ranks > most_ranks_tried) {
      if (per_rank == 8) return partition;
      continue;
    }
    const double imbalance = ring_imbalance(partition, mask, weights);
    if (!best || imbalance < least) {
      best = std::move(partition);
      least = imbalance;
    }
    if (least <= good_enough || per_rank * ranks > mask.queries()) break;
  }
  return *best;
}

Partition Partition::of(Index tokens, const std::vector<std::vector<Run>>& runs, std::string name) {
  require(!runs.empty(), "a partition needs at least one rank");
  Index owned = 0;
  bool sound = true;
  for (const auto& mine : runs)
    for (const Run& run : mine) {
      sound = sound && run.count > 0 && run.stride > 0 && run.first >= 0 && run.at(run.count - 1) < tokens;
      owned += run.count;
    }
  require(sound && owned == tokens, "the runs of a partition must cover every token exactly once: they hold ", owned,
          " of ", tokens, " tokens");
  require(disjoint(runs), "the runs of a partition must cover every token exactly once: some token has two owners");
  return {tokens, runs, std::move(name)};
}

Partition Partition::joined(int size) const {
  require(size >= 1 && ranks() % size == 0, "the size of a seat must divide the ranks: size = ", size,
          ", ranks = ", ranks());
  std::vector<std::vector<Run>> seats(static_cast<std::size_t>(ranks() / size));
  for (Rank r = 0; r < ranks(); ++r) {
    auto& seat = seats[static_cast<std::size_t>(r / size)];
    seat.insert(seat.end(), runs(r).begin(), runs(r).end());
  }
  return {tokens_, seats, name_};
}

Index Partition::largest() const { return std::ranges::max(rows_); }

Index Partition::position(Rank rank, Index row) const {
  for (const Run& run : runs(rank)) {
    if (row < 0) break;
    if (row < run.count) return run.at(row);
    row -= run.count;
  }
  throw Error(Failure::runtime, sentence("rank ", rank, " has no such row: it owns ", rows(rank), " rows"));
}

Partition make_partition(std::string_view name, Index tokens, int ranks, const Mask& mask,
                         std::span<const double> weights) {
  require(weights.empty() || name == "balanced", "weights need the balanced partition: the partition is ", name);
  if (name == "contiguous") return Partition::contiguous(tokens, ranks);
  if (name == "zigzag") return Partition::zigzag(tokens, ranks);
  if (name == "striped") return Partition::striped(tokens, ranks);
  if (name == "balanced") {
    if (tokens == mask.queries()) return Partition::balanced(mask, ranks, weights);
    return Partition::contiguous(tokens, ranks);  // the keys of cross-attention have no work of their own to balance
  }
  throw Error(Failure::usage,
              sentence("partition must be contiguous, zigzag, striped or balanced: it is '", name, "'"));
}

}  // namespace annulus

#include "plan/passes.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace annulus {
namespace {

constexpr Index f32 = 4;

// The all-to-alls inside a seat, batch by batch, with the copies that cut rows by heads.
class Trade {
 public:
  Trade(const Schedule& job, const Prices& p)
      : job_(job),
        p_(p),
        received_(static_cast<std::size_t>(job.grid.ranks())),
        query_shares_(query_shares(p, job.grid.heads)),
        kv_shares_(kv_shares(p, job.grid.heads)) {
    const int ranks_here = std::min(p.ranks_per_node, job.grid.ranks());
    crowd_ = std::max(1.0, static_cast<double>(ranks_here) / p.workers_per_node);
    ports_ = std::max(1.0, static_cast<double>(ranks_here) / p.network_ports);
  }

  // One batch; a head of a row is so many bytes. back: rows go to their owners, else they come from them.
  void queries(Index head_bytes, bool back) { batch(job_.queries, query_shares_, head_bytes, {false, back}); }
  void keys(Index head_bytes, bool back) { batch(job_.keys, kv_shares_, head_bytes, {true, back}); }
  // What the batch before needs besides.
  void copy(Index bytes) { batches_.back().seconds += copying(bytes); }

  // The batches since it was asked for last.
  std::vector<Passes::Exchange> take() { return std::exchange(batches_, {}); }
  Index largest() const { return std::ranges::max(received_); }
  Index total() const { return total_; }
  Index across() const { return across_; }

 private:
  struct Way {
    bool keys, back;
  };
  // Rows and heads of neighbouring ranks of a seat.
  struct Sum {
    Index rows = 0, heads = 0;
  };
  double copying(Index bytes) const { return 2 * static_cast<double>(bytes) / p_.memory_bytes_per_second * crowd_; }
  void batch(const Partition& rows, const std::vector<Index>& heads, Index head_bytes, Way way) {
    const int lanes = job_.grid.heads;
    Index copied = 0, near = 0, across = 0;  // the most of a rank
    const auto sum = [&](Rank begin, Rank end, Rank first) {
      Sum all;
      for (Rank rank = begin; rank < end; ++rank) {
        all.rows += rows.rows(rank);
        all.heads += heads[static_cast<std::size_t>(rank - first)];
      }
      return all;
    };
    for (Rank first = 0; first < job_.grid.ranks(); first += lanes) {
      const Sum seat = sum(first, first + lanes, first);
      for (Rank begin = first, end = first; begin < first + lanes; begin = end) {
        end = std::min<Rank>(first + lanes,
                             static_cast<Rank>((Index{begin} / p_.ranks_per_node + 1) * p_.ranks_per_node));
        const Sum here = sum(begin, end, first), there{seat.rows - here.rows, seat.heads - here.heads};
        for (Rank rank = begin; rank < end; ++rank) {
          const Index own = rows.rows(rank), share = heads[static_cast<std::size_t>(rank - first)];
          // of so many rows the own share, and of the own rows so many heads
          const auto moved = [&](const Sum& others) { return std::pair(others.rows * share, own * others.heads); };
          const auto [gathered, scattered] = moved({seat.rows - own, seat.heads - share});
          const auto [gathered_across, scattered_across] = moved(there);
          const auto [near_in, near_out] = moved(here);
          received_[static_cast<std::size_t>(rank)] += (way.back ? scattered : gathered) * head_bytes;
          total_ += (way.back ? scattered : gathered) * head_bytes;
          across_ += (way.back ? scattered_across : gathered_across) * head_bytes;
          near = std::max({near, near_in, near_out});
          across = std::max({across, gathered_across, scattered_across});
          copied = std::max(copied, own * seat.heads);
        }
      }
    }
    add(heads, head_bytes, way.keys, copying(copied * head_bytes) + takes(rows, heads, head_bytes, {near, across}));
  }
  // most: rows times heads that the rank with most of them moves inside its node, its own for itself included, and beyond.
  double takes(const Partition& rows, const std::vector<Index>& heads, Index head_bytes,
               std::pair<Index, Index> most) const {
    const auto longest = static_cast<double>(rows.largest() * std::ranges::max(heads) * head_bytes);
    const auto seconds = [&](const LinkPrice& link, Index moved, double shared) {
      return link.latency(longest) + static_cast<double>(moved * head_bytes) * shared / link.bytes_per_second;
    };
    const double near = seconds(p_.near, most.first, crowd_);
    return most.second > 0 ? std::max(near, seconds(p_.far, most.second, ports_)) : near;
  }
  void add(const std::vector<Index>& heads, Index head_bytes, bool keys, double seconds) {
    batches_.push_back({keys, heads, seconds});
    for (Index& lane : batches_.back().row_bytes) lane *= head_bytes;
  }
  const Schedule& job_;
  const Prices& p_;
  double crowd_ = 1, ports_ = 1;
  std::vector<Passes::Exchange> batches_;
  std::vector<Index> received_;  // by rank
  std::vector<Index> query_shares_, kv_shares_;
  Index total_ = 0, across_ = 0;
};

// Bytes read and written by a rank beside the kernel: clearing, normalising, copying results.
double own_passes(const Schedule& job, const Prices& p, bool backward) {
  const int lanes = job.grid.heads;
  const Index rows = job.planner.queries().largest(), keys = job.planner.keys().largest(),
              query_share = largest_query_share(p, lanes), width = p.channels + p.value_channels,
              sums = keys * largest_kv_share(p, lanes) * width * f32;
  Index bytes = 0;
  if (!backward) {  // cleared; read and written
    bytes = 3 * rows * query_share * (p.value_channels + 2) * f32;
    if (queries_travel(job.grid.travel)) bytes += 2 * rows * query_share * p.value_channels * f32;
  } else {  // dout . out; gradients cleared, and copied to where they are wanted
    bytes = job.queries.largest() * p.query_heads * p.value_channels * (p.element_bytes + f32) +
            3 * (rows * query_share * p.channels * f32 + sums);
    if (job.grid.travel == Travel::queries) bytes += 2 * rows * saved_row_bytes(p, query_share);
  }
  const double crowd =
      std::max(1.0, static_cast<double>(std::min(p.ranks_per_node, job.grid.ranks())) / p.workers_per_node);
  return p.seconds_per_pass + static_cast<double>(bytes) / p.memory_bytes_per_second * crowd;
}

}  // namespace

double Passes::Pass::fixed_seconds() const {
  double seconds = own_seconds;
  for (const auto* exchanges : {&before, &after})
    for (const Exchange& exchange : *exchanges) seconds += exchange.seconds;
  return seconds;
}

Passes::Passes(const Schedule& job, const Prices& p) : tree_(job.grid.travel == Travel::tree) {
  const int lanes = job.grid.heads;
  const bool queries = queries_travel(job.grid.travel);
  const Index width = p.channels + p.value_channels, query_share = largest_query_share(p, lanes),
              kv_share = largest_kv_share(p, lanes), e = p.element_bytes;
  partial_row_bytes = query_share * (p.value_channels + 2) * f32;
  forward = queries ? Pass{query_share * p.channels * e, partial_row_bytes} : Pass{kv_share * width * e, 0};
  forward.own_seconds = own_passes(job, p, false);
  if (p.backward && !tree_) {
    backward = queries ? Pass{saved_row_bytes(p, query_share), query_share * p.channels * f32}
                       : Pass{kv_share * width * e, kv_share * width * f32};
    backward->own_seconds = own_passes(job, p, true);
  }
  shares = queries ? query_shares(p, lanes) : kv_shares(p, lanes);
  if (lanes == 1) return;
  const auto inputs = [&](Trade& trade) {
    trade.queries(p.channels * e, false);
    trade.keys(p.channels * e, false);
    trade.keys(p.value_channels * e, false);
    trade.copy(job.planner.keys().largest() * kv_share * width * e);  // K and V side by side
  };
  Trade trade(job, p);
  inputs(trade);
  forward.before = trade.take();
  trade.queries(p.value_channels * f32, true);
  trade.queries(f32, true);
  forward.after = trade.take();
  if (backward) {
    inputs(trade);
    trade.queries(p.value_channels * e, false);
    trade.queries(f32, false);
    trade.queries(f32, false);
    backward->before = trade.take();
    trade.queries(p.channels * f32, true);
    trade.keys(p.channels * f32, true);
    trade.keys(p.value_channels * f32, true);
    backward->after = trade.take();
  }
  exchange_bytes = trade.largest();
  exchange_total = trade.total();
  exchange_node_bytes = trade.across();
}

Index Passes::in_all_lanes(Index largest) const {
  return largest * std::accumulate(shares.begin(), shares.end(), Index{0}) / std::ranges::max(shares);
}

Index Passes::row_bytes() const {
  Index bytes = forward.block_bytes + (tree_ ? 0 : forward.sum_bytes);
  if (backward) bytes += backward->block_bytes + backward->sum_bytes;
  return bytes;
}

}  // namespace annulus

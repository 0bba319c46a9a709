#include "plan/passes.hpp"

#include <algorithm>
#include <utility>

namespace annulus {
namespace {

constexpr Index f32 = 4;

// The all-to-alls inside a seat: batch by batch, what one rank sends, and the copies that cut it by heads.
class Trade {
 public:
  Trade(const Schedule& job, const Prices& p)
      : job_(job), p_(p), lanes_(job.grid.heads), here_(std::min(lanes_, p.ranks_per_node)) {
    const int ranks_here = std::min(p.ranks_per_node, job.grid.ranks());
    crowd_ = std::max(1.0, static_cast<double>(ranks_here) / p.workers_per_node);
    ports_ = std::max(1.0, static_cast<double>(ranks_here) / p.network_ports);
  }

  // One batch; a row of a query or key is so many bytes, all heads of it.
  void queries(Index row) { batch(job_.queries, row, false); }
  void keys(Index row) { batch(job_.keys, row, true); }
  // What the batch before needs besides.
  void copy(Index bytes) { batches_.back().seconds += copying(bytes); }

  // The batches since it was asked for last.
  std::vector<Passes::Exchange> take() { return std::exchange(batches_, {}); }
  Index largest() const { return largest_ / lanes_ * (lanes_ - 1); }
  Index total() const { return total_ / lanes_ * (lanes_ - 1); }
  Index across() const { return total_ / lanes_ * (lanes_ - here_); }

 private:
  double copying(Index bytes) const { return 2 * static_cast<double>(bytes) / p_.memory_bytes_per_second * crowd_; }
  void batch(const Partition& rows, Index row, bool keys) {
    const Index bytes = rows.largest() * row;
    largest_ += bytes;
    total_ += rows.tokens() * row;
    const double share = static_cast<double>(bytes) / lanes_;
    const double near = p_.near.latency(share) + share * here_ * crowd_ / p_.near.bytes_per_second;
    const double across =
        here_ < lanes_ ? p_.far.latency(share) + share * (lanes_ - here_) * ports_ / p_.far.bytes_per_second : 0;
    batches_.push_back({keys, row / lanes_, copying(bytes) + std::max(near, across)});
  }
  const Schedule& job_;
  const Prices& p_;
  int lanes_, here_;
  double crowd_ = 1, ports_ = 1;
  std::vector<Passes::Exchange> batches_;
  Index largest_ = 0, total_ = 0;
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
    if (job.grid.travel == Travel::queries) bytes += 2 * rows * query_share * (width * p.element_bytes + 2 * f32);
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
    backward = queries ? Pass{query_share * (width * e + 2 * f32), query_share * p.channels * f32}
                       : Pass{kv_share * width * e, kv_share * width * f32};
    backward->own_seconds = own_passes(job, p, true);
  }
  if (lanes == 1) return;
  const Index kv_heads = kv_share * lanes;  // those in several shares travel several times
  const auto inputs = [&](Trade& trade) {
    trade.queries(p.query_heads * p.channels * e);
    trade.keys(kv_heads * p.channels * e);
    trade.keys(kv_heads * p.value_channels * e);
    trade.copy(job.planner.keys().largest() * kv_share * width * e);  // K and V side by side
  };
  Trade there(job, p);
  inputs(there);
  forward.before = there.take();
  there.queries(p.query_heads * p.value_channels * f32);
  there.queries(p.query_heads * f32);
  forward.after = there.take();
  exchange_bytes = there.largest();
  exchange_total = there.total();
  exchange_node_bytes = there.across();
  if (!backward) return;
  Trade back(job, p);
  inputs(back);
  back.queries(p.query_heads * p.value_channels * e);
  back.queries(p.query_heads * f32);
  back.queries(p.query_heads * f32);
  backward->before = back.take();
  back.queries(p.query_heads * p.channels * f32);
  back.keys(kv_heads * p.channels * f32);
  back.keys(kv_heads * p.value_channels * f32);
  backward->after = back.take();
  exchange_bytes += back.largest();
  exchange_total += back.total();
  exchange_node_bytes += back.across();
}

Index Passes::row_bytes() const {
  Index bytes = forward.block_bytes + (tree_ ? 0 : forward.sum_bytes);
  if (backward) bytes += backward->block_bytes + backward->sum_bytes;
  return bytes;
}

}  // namespace annulus

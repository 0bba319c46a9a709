#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "annulus/base/error.hpp"
#include "annulus/plan/cost.hpp"
#include "plan/passes.hpp"
#include "plan/stream.hpp"

namespace annulus {
namespace {

struct Simulated {
  Estimate estimate;
  std::vector<double> received;  // bytes that one lane of each seat receives
};

// With the forward pass, or without it: the gradients of a tree.
Simulated simulate(const Schedule& job, const Prices& p, const Recording& recording) {
  const Passes passes(job, p);
  Estimate e;
  e.row_bytes = passes.row_bytes();
  if (passes.backward) e.backward_row_bytes = passes.backward->block_bytes + passes.backward->sum_bytes;
  Stream stream(job, p, passes, recording);
  stream.run(e);
  e.forward.seconds += passes.forward.fixed_seconds();
  if (passes.backward) e.backward.seconds += passes.backward->fixed_seconds();
  Recording then = recording;
  if (const auto& recorders = stream.recorders(); !recorders.empty()) {
    if (recording.forward) {
      then.start.batch = recorders.front().write(job, passes, passes.forward, then.start, *then.into);
      then.start.begins += e.forward.seconds;
    }
    if (passes.backward) recorders.back().write(job, passes, *passes.backward, then.start, *then.into);
  }
  const Index row = passes.in_all_lanes(recording.forward ? e.row_bytes : e.backward_row_bytes),
              partial_row = stream.merged > 0 ? passes.in_all_lanes(passes.partial_row_bytes) : 0;
  std::vector<double> received = stream.bytes_received(recording.forward ? 0 : 1);
  e.total_bytes = stream.received * row + stream.merged * partial_row;
  e.node_bytes = stream.crossed * row + stream.merged_across * partial_row;
  e.exchange_bytes = passes.exchange_bytes;
  e.exchange_total = passes.exchange_total;
  e.exchange_node_bytes = passes.exchange_node_bytes;
  if (job.grid.travel == Travel::tree && p.backward) {
    const auto [ring, more] = simulate(ring_of(job), p, {then.into, false, then.start});
    e.backward = ring.backward;
    e.total_bytes += ring.total_bytes;
    e.node_bytes += ring.node_bytes;
    e.buffer_rows = std::max(e.buffer_rows, ring.buffer_rows);
    e.exchange_bytes = ring.exchange_bytes;
    e.exchange_total = ring.exchange_total;
    e.exchange_node_bytes = ring.exchange_node_bytes;
    std::ranges::transform(received, more, received.begin(), std::plus{});
  }
  e.block_bytes_received = std::llround(std::ranges::max(received));
  return {std::move(e), std::move(received)};
}

// Of all K/V heads that the lanes of a seat need.
double whole_bytes(const Schedule& job, const Prices& p) {
  constexpr Index f32 = 4;
  const std::vector<Index> shares = kv_shares(p, job.grid.heads);
  const Index kv_row = std::accumulate(shares.begin(), shares.end(), Index{0}) * (p.channels + p.value_channels);
  return static_cast<double>(job.mask.keys()) * (job.planner.seats() - 1) *
         static_cast<double>(p.backward ? kv_row * (2 * p.element_bytes + f32) : kv_row * p.element_bytes);
}

}  // namespace

bool steps_are_sampled(const Schedule& job, const Prices& p) { return job.planner.looks() > p.most_looks; }

Estimate estimate(const Schedule& job, const Prices& p, Prediction* prediction) {
  require(prediction == nullptr || !steps_are_sampled(job, p),
          "what ranks do is known only where every step is simulated: seats = ", job.planner.seats());
  Estimate e = simulate(job, p, {prediction}).estimate;
  e.whole_bytes = whole_bytes(job, p);
  return e;
}

}  // namespace annulus

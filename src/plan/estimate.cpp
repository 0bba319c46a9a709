#include <algorithm>

#include "annulus/base/error.hpp"
#include "annulus/plan/cost.hpp"
#include "plan/passes.hpp"
#include "plan/stream.hpp"

namespace annulus {
namespace {

Estimate simulate(const Schedule& job, const Prices& p, const Recording& recording) {
  const int lanes = job.grid.heads;
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
      then.batch = recorders.front().write(job, passes.forward, then.begins, then.batch, *then.into);
      then.begins += e.forward.seconds;
    }
    if (passes.backward) recorders.back().write(job, *passes.backward, then.begins, then.batch, *then.into);
  }
  const Index partial_row = passes.partial_row_bytes;
  e.block_bytes_received = stream.most_received * e.row_bytes + stream.most_merged * partial_row;
  e.total_bytes = (stream.received * e.row_bytes + stream.merged * partial_row) * lanes;
  e.node_bytes = (stream.crossed * e.row_bytes + stream.merged_across * partial_row) * lanes;
  e.exchange_bytes = passes.exchange_bytes;
  e.exchange_total = passes.exchange_total;
  e.exchange_node_bytes = passes.exchange_node_bytes;
  constexpr Index f32 = 4;
  const Index kv_row = largest_kv_share(p, lanes) * (p.channels + p.value_channels);
  e.whole_bytes = job.mask.keys() * (job.planner.seats() - 1) * lanes *
                  (p.backward ? kv_row * (2 * p.element_bytes + f32) : kv_row * p.element_bytes);
  if (job.grid.travel != Travel::tree || !p.backward) return e;
  const Schedule ring = ring_of(job);
  const Estimate both = simulate(ring, p, {then.into, false, then.begins, then.batch});
  const Index more = both.backward_row_bytes;
  e.backward = both.backward;
  e.block_bytes_received += both.block_bytes_received / both.row_bytes * more;
  e.total_bytes += both.total_bytes / both.row_bytes * more;
  e.node_bytes += both.node_bytes / both.row_bytes * more;
  e.buffer_rows = std::max(e.buffer_rows, both.buffer_rows);
  e.exchange_bytes = both.exchange_bytes;
  e.exchange_total = both.exchange_total;
  e.exchange_node_bytes = both.exchange_node_bytes;
  return e;
}

}  // namespace

bool steps_are_sampled(const Schedule& job, const Prices& p) { return looks_of(job.planner) > p.most_looks; }

Estimate estimate(const Schedule& job, const Prices& p, Prediction* prediction) {
  require(prediction == nullptr || !steps_are_sampled(job, p),
          "what ranks do is known only where every step is simulated: seats = ", job.planner.seats());
  return simulate(job, p, {prediction});
}

}  // namespace annulus

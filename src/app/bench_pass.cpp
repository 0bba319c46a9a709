#include "app/bench_pass.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "annulus/geometry/meet.hpp"
#include "annulus/memory/number.hpp"
#include "annulus/transport/in_process.hpp"
#include "app/backends.hpp"
#include "app/compute.hpp"
#include "app/finishing_kernel.hpp"
#include "app/synthetic.hpp"

namespace annulus::app {

using What = RowSource::What;

namespace {

// Numbers of rows that live on any device.
void fill(Device& device, What what, std::span<const Run> runs, const Rows& rows) {
  if (device.place() == Place::cpu) return fill_synthetic(what, runs, rows);
  CpuDevice cpu;
  const Array here(cpu, rows.type, rows.tokens, rows.heads, rows.channels);
  fill_synthetic(what, runs, here);
  device.copy_rows(here, rows);
}

// A GPU's compute events are to say how long the work took.
std::unique_ptr<Kernel> kernel_of(const Settings& settings, const Job& job, Rank rank, const Accelerator& accelerator) {
  auto kernel =
      make_kernel(settings.text("kernel"),
                  problem_of(job.shape, job.schedule.grid, job.schedule.lane_of(rank), job.schedule.mask.query_shift()),
                  accelerator.kernel_options(job.place.threads));
  if (!accelerator.on_gpu()) return kernel;
  return std::make_unique<FinishingKernel>(std::move(kernel), accelerator.device());
}

// One rank's plan, a step for each block of its own keys: what the steps of a ring compute, and nothing moves.
Plan plan_of_blocks(const Schedule& schedule, Index block_tokens) {
  Plan plan = schedule.plan_of(0);
  const Step whole = plan.steps.at(0);
  plan.steps.clear();
  for (Index first = 0; first < plan.key_rows; first += block_tokens) {
    const Run block{first, std::min(block_tokens, plan.key_rows - first), 1};
    Step step = whole;
    step.tiles = meet(schedule.queries.runs(0), {&block, 1}, schedule.mask);
    for (Tile& tile : step.tiles) tile.k = {tile.k.begin + first, tile.k.end + first};  // among all own keys
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

}  // namespace

BenchPass::Tensors BenchPass::make_tensors(const Job& job, const Accelerator& accelerator, bool backward) {
  Device& device = accelerator.device();
  const Rank rank = accelerator.transport().rank();
  const AttentionShape& s = job.shape;
  const auto queries = job.schedule.queries.runs(rank), keys = job.schedule.keys.runs(rank);
  const Index rows = job.schedule.queries.rows(rank), key_rows = job.schedule.keys.rows(rank);
  Tensors t;
  t.q = Array(device, s.type, rows, s.query_heads, s.channels);
  t.block = Array(lending(accelerator.transport(), device), s.type, key_rows, 1,
                  s.kv_heads * (s.channels + s.value_channels));
  t.kv = Attention::views(t.block, s.kv_heads, s.channels, s.value_channels);
  fill(device, What::q, queries, t.q);
  fill(device, What::k, keys, t.kv.k);
  fill(device, What::v, keys, t.kv.v);
  t.out = Array(device, DType::f32, rows, s.query_heads, s.value_channels);
  t.lse = Array(device, DType::f32, rows, s.query_heads, 1);
  if (!backward) return t;
  t.dout = Array(device, s.type, rows, s.query_heads, s.value_channels);
  fill(device, What::dout, queries, t.dout);
  t.dq = Array(device, DType::f32, rows, s.query_heads, s.channels);
  t.dblock = Array(device, DType::f32, key_rows, 1, s.kv_heads * (s.channels + s.value_channels));
  t.dkv = Attention::views(t.dblock, s.kv_heads, s.channels, s.value_channels);
  return t;
}

BenchPass::BenchPass(const Settings& settings, const Job& job, RankTools& tools, const Accelerator& accelerator,
                     const PassChoice& choice)
    : backward_(choice.backward),
      traces_(choice.traces),
      job_(job),
      tools_(tools),
      device_(accelerator.device()),
      transport_(accelerator.transport(), tools.transport),
      kernel_(kernel_of(settings, job, tools.transport.rank(), accelerator)),
      tensors_(make_tensors(job, accelerator, choice.backward)),
      attention_(
          job.schedule, choice.plan ? *choice.plan : job.schedule.plan_of(job.schedule.seat_of(tools.transport.rank())),
          job.shape,
          {device_, *kernel_, transport_, tools.timeline, operations_per_batch(accelerator.on_gpu(), job.place.threads),
           [pause = choice.pause, alone = job.place.ranks == 1](Index) {
             if (alone) pause();
           }}) {}

void BenchPass::prepare() {
  if (backward_) attention_.forward(tensors_.q, tensors_.kv, tensors_.out, tensors_.lse);
}

void BenchPass::run() {
  Tensors& t = tensors_;
  if (backward_) {
    attention_.backward(t.q, t.kv, t.dout, t.out, t.lse, {t.dq, t.dkv.k, t.dkv.v});
  } else {
    attention_.forward(t.q, t.kv, t.out, t.lse);
  }
  if (traces_.any()) {
    Traces traces(traces_, job_, tools_, "trace");
    attention_.observe(t.q, t.kv.k, t.lse, traces.view());
  }
  device_.finish();
}

double pass_operations(const Job& job, const Case& c) {
  const AttentionShape& s = job.shape;
  const auto each = static_cast<double>(s.channels + s.value_channels), traced = static_cast<double>(s.channels);
  return ((c.backward ? 5.0 : 2.0) * each + (c.traces.any() ? 2.0 * traced : 0.0)) *
         static_cast<double>(job.schedule.mask.pairs()) * static_cast<double>(s.query_heads);
}

Checked BenchPass::check(const Job& job, Rank rank, Index samples) const {
  const Index tokens = job.schedule.mask.queries();
  RecomputeChoice choice;
  std::vector<Index> local;
  for (Index i = 0; i < std::min(samples, tokens); ++i) {
    const Index token = samples >= tokens ? i : i * (tokens - 1) / std::max<Index>(1, samples - 1);
    Index row = 0;
    for (const Run& run : job.schedule.queries.runs(rank)) {
      const Index place = token - run.first;
      if (place >= 0 && place % run.stride == 0 && place / run.stride < run.count) {
        choice.rows.push_back(token);
        local.push_back(row + place / run.stride);
      }
      row += run.count;
    }
  }
  if (local.empty()) return {};
  choice.gradients = backward_;
  const RowSource source{job.shape, job.schedule.mask, fill_synthetic};
  const Recomputed exact = recompute(source, choice);
  const std::vector<double>& expected = backward_ ? exact.dq : exact.out;
  double largest = 0, error = 0;
  const Array& result = backward_ ? tensors_.dq : tensors_.out;
  CpuDevice cpu;
  const Array fetched = device_.place() == Place::cpu
                            ? Array()
                            : Array(cpu, DType::f32, result.rows().tokens, result.rows().heads, result.rows().channels);
  if (device_.place() != Place::cpu) device_.copy_rows(result, fetched);
  const Rows& got = device_.place() == Place::cpu ? result.rows() : fetched.rows();
  const auto width = static_cast<std::size_t>(got.heads * got.channels);
  for (std::size_t r = 0; r < local.size(); ++r)
    for (std::size_t x = 0; x < width; ++x) {
      const double value =
          number(got, local[r], static_cast<Index>(x) / got.channels, static_cast<Index>(x) % got.channels);
      largest = std::max(largest, std::abs(expected[r * width + x]));
      const double off = std::abs(value - expected[r * width + x]);
      error = std::max(error, std::isnan(off) ? std::numeric_limits<double>::infinity() : off);
    }
  const ErrorBounds bounds = error_bounds(kernel_->name(), job.shape.type, exact.largest_score);
  const double allowed =
      backward_ ? bounds.of_gradient(largest, exact.magnitudes.dq) : bounds.out * exact.magnitudes.out;
  return {error / std::max(allowed, 1e-30), error};
}

Alone run_alone(const Settings& settings, const Case& c, int threads, const AloneChoice& choice) {
  Fabric fabric(1);
  const auto transport = fabric.transport(0);
  CpuDevice device;
  Timeline timeline;
  timeline.keep(true);
  RankTools tools{*transport, device, timeline, true};
  const Job job{c.shape,
                make_schedule({1, 1, 1}, "contiguous", Mask::parse(c.mask, {c.tokens, c.keys, c.documents})),
                "ring",
                "",
                {1, 1, threads}};
  const Accelerator accelerator(settings, job, tools, memory_of(job, c.backward));
  const auto pause = [&] {
    if (choice.stops && stop_requested()) throw Error(Failure::stopped, "stopped on request");
  };
  PassChoice pass{c.backward, c.traces, pause};
  if (choice.block_tokens > 0) pass.plan = plan_of_blocks(job.schedule, choice.block_tokens);
  BenchPass bench(settings, job, tools, accelerator, pass);
  bench.prepare();
  for (Index i = 0; i < choice.warm_ups; ++i) bench.run();
  Alone alone{{}, {}, pass_operations(job, c), bench.kernel(), {}};
  for (Index i = 0; i < choice.repetitions; ++i) {
    if (choice.between) choice.between();
    const double begins = timeline.now();
    bench.run();
    alone.seconds.push_back(timeline.now() - begins);
    alone.compute_seconds.push_back(timeline.total("compute", begins));
  }
  if (choice.between) choice.between();
  if (choice.samples > 0) alone.checked = bench.check(job, 0, choice.samples);
  return alone;
}

}  // namespace annulus::app

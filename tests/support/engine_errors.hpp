#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <mutex>

#include "annulus/engine/host_attention.hpp"
#include "support/oracle.hpp"
#include "support/ranks.hpp"

namespace annulus {

using MakeKernel = std::function<std::unique_ptr<Kernel>(const Problem&)>;
inline const MakeKernel reference64 = [](const Problem& p) { return make_reference_kernel(p); };
inline const MakeKernel reference32 = [](const Problem& p) { return make_reference_kernel(p, DType::f32); };

/// What a CPU tier may err by, as annulus/kernel/cpu.hpp says: half a unit in the last place of what it rounds to bf16 is
/// `unit` of the largest number summed; tiles keep 16 bits of f16 numbers, "amx-fast" of f32 ones, too.
struct Bounds {
  double out, lse, gradients, statistics;
};
inline Bounds bounds_of(std::string_view tier, DType type, double unit = 0x1p-8) {
  const bool in_tiles = tier.starts_with("amx-"), half = type == DType::f16;
  const double coarse = tier == "amx-fast" && type != DType::bf16 ? 60 : 1;
  const double rounding = tier.ends_with("-bf16") && type == DType::bf16 ? unit
                          : tier == "amx-split" && half                  ? unit * 0x1p-8
                                                                         : 0;
  const double weights = !in_tiles ? rounding : type == DType::bf16 ? unit : half ? unit * 0x1p-7 : 0;
  return {std::max(rounding, coarse * 1e-6), coarse * 1e-6, std::max({rounding, weights, coarse * 5e-6}),
          coarse * 5e-6};
}

struct Errors {
  double out = 0, lse = 0, dq = 0, dk = 0, dv = 0, entropy = 0, max_probability = 0, sink = 0, distance = 0,
         received = 0;
  double forward() const { return std::max(out, lse); }
  double gradients() const { return std::max({dq, dk, dv}); }
  double statistics() const { return std::max({entropy, max_probability, sink, distance, received}); }
  double worst() const { return std::max({forward(), gradients(), statistics()}); }
  void include(const Errors& other) {
    for (double Errors::*e : {&Errors::out, &Errors::lse, &Errors::dq, &Errors::dk, &Errors::dv, &Errors::entropy,
                              &Errors::max_probability, &Errors::sink, &Errors::distance, &Errors::received})
      this->*e = std::max(this->*e, other.*e);
  }
};

/// Runs forward, backward and observe as one rank of a job on a device and compares the rows with the dense float64
/// computation.
inline Errors engine_errors(const Dense& dense, const Schedule& job, const MakeKernel& make, Transport& transport,
                            Device& device) {
  const Rank r = transport.rank();
  const AttentionShape& s = dense.shape;
  CpuDevice cpu;
  Timeline timeline;
  const auto kernel = make(problem_of(s, job.grid, job.lane_of(r), job.mask.query_shift()));
  const DType type = kernel->accumulator();
  HostAttention attention(job, s, {device, *kernel, transport, timeline, 1e4});
  const Array q = take(cpu, dense.q, s.type, job.queries, r, s.query_heads, s.channels);
  const Array k = take(cpu, dense.k, s.type, job.keys, r, s.kv_heads, s.channels);
  const Array v = take(cpu, dense.v, s.type, job.keys, r, s.kv_heads, s.value_channels);
  const Array dout = take(cpu, dense.dout, s.type, job.queries, r, s.query_heads, s.value_channels);
  const Index rows = job.queries.rows(r), key_rows = job.keys.rows(r);
  const Array out(cpu, type, rows, s.query_heads, s.value_channels), lse(cpu, type, rows, s.query_heads, 1);
  attention.forward(q, {k, v}, out, lse);
  const Array dq(cpu, type, rows, s.query_heads, s.channels), dk(cpu, type, key_rows, s.kv_heads, s.channels),
      dv(cpu, type, key_rows, s.kv_heads, s.value_channels);
  attention.backward(q, {k, v}, dout, out, lse, {dq, dk, dv});
  const auto zeros = [&](Index n, Index channels = 1) { return Array::zeros(cpu, type, n, s.query_heads, channels); };
  const Array entropy = zeros(rows), top = zeros(rows), sink = zeros(rows), distance = zeros(rows),
              received = zeros(key_rows), score = zeros(rows, 3);
  for (Index i = 0; i < rows; ++i)
    for (Index h = 0; h < s.query_heads; ++h)
      for (Index x = 0; x < 3; ++x) {
        if (type == DType::f64) score.rows().at<double>(i, h)[x] = -std::numeric_limits<double>::infinity();
        if (type == DType::f32) score.rows().at<float>(i, h)[x] = -std::numeric_limits<float>::infinity();
      }
  std::vector<Index> index(static_cast<std::size_t>(rows * s.query_heads * 3), -1);
  std::vector<double> map(static_cast<std::size_t>(s.query_heads * 64));
  const Index block = std::max<Index>(1, ceil_div(std::max(dense.queries, dense.keys), 8));
  attention.observe(q, k, lse, {entropy, top, sink, distance, received, score, index, map, 4, block, 8, 8});
  for (Index i = 0; i < rows; ++i)
    for (Index h = 0; h < s.query_heads; ++h) {
      const Index query = job.queries.position(r, i);
      const double* p = dense.probability.data() + (query * s.query_heads + h) * dense.keys;
      std::vector<double> best(p, p + dense.keys);
      std::ranges::sort(best, std::greater{});
      for (Index x = 0; x < std::min<Index>(3, dense.mask.seen_by(query)); ++x) {
        const Index key = index[static_cast<std::size_t>((i * s.query_heads + h) * 3 + x)];
        if (key < 0) return {std::numeric_limits<double>::infinity()};
        EXPECT_NEAR(p[key], best[static_cast<std::size_t>(x)], 1e-5);
      }
    }
  Errors worst;
  const auto note = [&](double& at, const Rows& mine, const std::vector<double>& whole, const Partition& partition) {
    at = std::max(at, error_of(mine, whole, partition, r));
  };
  note(worst.out, out, dense.out, job.queries);
  note(worst.lse, lse, dense.lse, job.queries);
  note(worst.dq, dq, dense.dq, job.queries);
  note(worst.dk, dk, dense.dk, job.keys);
  note(worst.dv, dv, dense.dv, job.keys);
  note(worst.entropy, entropy, dense.entropy, job.queries);
  note(worst.max_probability, top, dense.max_probability, job.queries);
  note(worst.sink, sink, dense.sink, job.queries);
  note(worst.distance, distance, dense.distance, job.queries);
  note(worst.received, received, dense.received, job.keys);
  return worst;
}

/// The same on the CPU.
inline Errors engine_errors(const Dense& dense, const Schedule& job, const MakeKernel& make, Transport& transport) {
  CpuDevice cpu;
  return engine_errors(dense, job, make, transport, cpu);
}

/// The same on threads, one for each rank of the job: the worst of all ranks.
inline Errors run(const Dense& dense, const Schedule& job, const MakeKernel& make,
                  FaultyTransport::Faults faults = {}) {
  Errors worst;
  std::mutex lock;
  on_ranks(
      job.grid.ranks(),
      [&](Transport& transport) {
        const Errors mine = engine_errors(dense, job, make, transport);
        const std::lock_guard guard(lock);
        worst.include(mine);
      },
      20, faults);
  return worst;
}

}  // namespace annulus

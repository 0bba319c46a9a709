#include "annulus/engine/attention.hpp"

#include <gtest/gtest.h>

#include <mutex>

#include "support/oracle.hpp"
#include "support/ranks.hpp"

namespace annulus {
namespace {

using MakeKernel = std::function<std::unique_ptr<Kernel>(const Problem&)>;

struct Errors {
  double out = 0, lse = 0, dq = 0, dk = 0, dv = 0, entropy = 0, max_probability = 0, sink = 0, distance = 0, received = 0;
  double forward() const { return std::max(out, lse); }
  double gradients() const { return std::max({dq, dk, dv}); }
  double statistics() const { return std::max({entropy, max_probability, sink, distance, received}); }
};

// Runs forward, backward and observe on threads and compares every rank's rows with the dense float64 computation.
Errors run(const Dense& dense, const Schedule& job, const MakeKernel& make, FaultyTransport::Faults faults = {}) {
  Errors worst;
  std::mutex lock;
  on_ranks(job.grid.ranks(), [&](Transport& transport) {
    const Rank r = transport.rank();
    const Shape& s = dense.shape;
    CpuDevice cpu;
    Timeline timeline;
    const auto kernel = make(problem_of(s, job.grid, job.lane_of(r), job.mask.query_shift()));
    const DType type = kernel->accumulator();
    Attention attention(job, s, {cpu, *kernel, transport, timeline, 1e4});
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
        const double* p = &dense.probability[static_cast<std::size_t>((query * s.query_heads + h) * dense.keys)];
        std::vector<double> best(p, p + dense.keys);
        std::ranges::sort(best, std::greater{});
        for (Index x = 0; x < std::min<Index>(3, dense.mask.seen_by(query)); ++x) {
          const Index key = index[static_cast<std::size_t>((i * s.query_heads + h) * 3 + x)];
          ASSERT_GE(key, 0);
          ASSERT_NEAR(p[key], best[static_cast<std::size_t>(x)], 1e-5);
        }
      }
    const std::lock_guard guard(lock);
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
  }, 20, faults);
  return worst;
}

const std::vector<Grid> grids{{1, 1, 1}, {1, 2, 1}, {1, 3, 1}, {2, 1, 1}, {1, 4, 1}, {2, 2, 1}, {4, 1, 1}, {1, 2, 2}, {1, 5, 1},
                              {3, 2, 1}, {1, 7, 1}, {1, 8, 1}, {2, 4, 1}, {4, 2, 1}, {8, 1, 1}, {1, 4, 2}, {2, 2, 2}};
const std::vector<const char*> partitions{"contiguous", "zigzag", "striped", "balanced"};

std::vector<Mask> masks(Index n) {
  std::vector<Mask> all;
  std::vector<Index> offsets{0, n / 5, n / 5, n / 2, n};
  for (const char* terms : {"full", "causal", "window:3,2", "causal+window:5,0+sink:2", "causal+documents", "documents",
                            "causal+prefix:7", "window:2,2+global:0,9"})
    all.push_back(Mask::parse(terms, {n, n, offsets}));
  return all;
}

// In float64 the engine must be right to the last digits, whatever the strategy: any wrong row, head or order shows.
TEST(Attention, EveryStrategyPartitionAndMaskIsExactInFloat64) {
  const Shape shape{6, 3, 5, 4, DType::f64, 0.4};
  for (const Mask& mask : masks(37)) {
    const Dense dense = make_dense(shape, mask, 5);
    for (const Grid& grid : grids)
      for (const char* partition : partitions) {
        SCOPED_TRACE(mask.name() + " " + to_text(grid) + " " + partition);
        const Errors errors = run(dense, make_schedule(grid, partition, mask), [](const Problem& p) { return make_reference_kernel(p); });
        ASSERT_LE(errors.forward(), 1e-13);
        ASSERT_LE(errors.gradients(), 1e-13);
        ASSERT_LE(errors.statistics(), 1e-13);
      }
  }
}

const MakeKernel reference64 = [](const Problem& p) { return make_reference_kernel(p); };
const MakeKernel reference32 = [](const Problem& p) { return make_reference_kernel(p, DType::f32); };

TEST(Attention, TheOracleNoticesAWrongResult) {  // the comparison itself must be able to fail
  Dense dense = make_dense({2, 1, 4, 4, DType::f64, 0.5}, Mask::parse("causal", {9, 9}), 1);
  dense.out[5] += 1e-6;
  dense.dk[7] += 1e-6;
  const Errors errors = run(dense, make_schedule({1, 2, 1}, "zigzag", dense.mask), reference64);
  EXPECT_GT(errors.out, 1e-8);
  EXPECT_GT(errors.dk, 1e-8);
  EXPECT_LT(errors.dv, 1e-13);
}

TEST(Attention, AnyLengthsRanksAndHeadsWork) {
  // one token, fewer tokens than ranks, none at all, heads and lengths nothing divides, multi-query attention
  for (const Index n : {0, 1, 2, 3, 7, 13})
    for (const auto& [query_heads, kv_heads] : {std::pair<Index, Index>{1, 1}, {3, 1}, {7, 7}, {4, 2}})
      for (const Grid& grid : grids) {
        const Mask mask = Mask::parse("causal", {n, n});
        SCOPED_TRACE(sentence(n, " tokens ", query_heads, ":", kv_heads, " heads ", to_text(grid)));
        const Errors errors = run(make_dense({query_heads, kv_heads, 3, 2, DType::f64, 0.7}, mask, 3),
                                  make_schedule(grid, "zigzag", mask), reference64);
        ASSERT_LE(std::max({errors.forward(), errors.gradients(), errors.statistics()}), 1e-13);
      }
}

TEST(Attention, CrossAttentionAlignsTheEnds) {
  for (const auto& [queries, keys] : {std::pair<Index, Index>{5, 29}, {29, 5}, {1, 16}, {16, 1}, {3, 0}, {0, 3}})
    for (const char* terms : {"full", "causal", "window:4,1", "causal+window:3,0+sink:2"})
      for (const char* partition : partitions)
        for (const Grid& grid : {Grid{1, 4, 1}, Grid{2, 2, 1}, Grid{1, 2, 2}, Grid{1, 3, 1}}) {
          const Mask mask = Mask::parse(terms, {queries, keys});
          SCOPED_TRACE(sentence(queries, " x ", keys, " ", terms, " ", partition, " ", to_text(grid)));
          const Errors errors = run(make_dense({2, 2, 4, 3, DType::f64, 0.5}, mask, 9), make_schedule(grid, partition, mask), reference64);
          ASSERT_LE(std::max({errors.forward(), errors.gradients(), errors.statistics()}), 1e-13);
        }
}

// Delays and reordering change nothing; a lost message is a communication error after the deadline, never a hang.
TEST(Attention, TimingDoesNotChangeResults) {
  const Mask mask = Mask::parse("causal+window:9,0+sink:3", {41, 41});
  const Dense dense = make_dense({4, 2, 5, 4, DType::f64, 0.5}, mask, 2);
  for (const Grid& grid : {Grid{1, 4, 1}, Grid{2, 2, 1}, Grid{1, 2, 2}})
    for (std::uint64_t seed = 1; seed < 6; ++seed) {
      const Errors errors = run(dense, make_schedule(grid, "zigzag", mask), reference64, {0.002, 0, seed});
      ASSERT_LE(std::max({errors.forward(), errors.gradients(), errors.statistics()}), 1e-13);
    }
}

TEST(Attention, ALostMessageEndsInACommunicationErrorOnEveryRank) {
  const Mask mask = Mask::parse("causal", {40, 40});
  const Schedule job = make_schedule({1, 4, 1}, "zigzag", mask);
  try {
    on_ranks(4, [&](Transport& transport) {
      CpuDevice cpu;
      Timeline timeline;
      const Shape shape{1, 1, 4, 4, DType::f32, 0.5};
      const auto kernel = reference32(problem_of(shape, job.grid, 0, 0));
      Attention attention(job, shape, {cpu, *kernel, transport, timeline});
      const Index rows = job.queries.rows(transport.rank());
      const Array q = Array::zeros(cpu, DType::f32, rows, 1, 4), out(cpu, DType::f32, rows, 1, 4), lse(cpu, DType::f32, rows, 1, 1);
      attention.forward(q, {q, q}, out, lse);
    }, 0.3, {0, 0.5, 4});
    FAIL() << "half the messages were lost and nobody noticed";
  } catch (const Error& e) {
    EXPECT_EQ(e.failure(), Failure::communication);
  }
}

// Nothing is rounded to 16 bits between hops, so 8 ranks are as good as one.
TEST(Attention, ErrorsDoNotGrowWithTheNumberOfRanks) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    const Mask mask = Mask::parse("causal", {96, 96});
    const Dense dense = make_dense({4, 2, 16, 16, type, 0.25}, mask, 6);
    for (const int ranks : {1, 8}) {
      const Errors errors = run(dense, make_schedule({1, ranks, 1}, "zigzag", mask), reference32);
      EXPECT_LE(errors.forward(), 1e-6) << name_of(type) << " on " << ranks << " ranks";
      EXPECT_LE(errors.gradients(), 5e-6) << name_of(type) << " on " << ranks << " ranks";
    }
  }
}

TEST(Attention, RowsThatSeeNothingAreNeutral) {
  // queries before position 0 of the keys see nothing under causal when there are more queries than keys
  const Mask mask = Mask::parse("causal", {12, 4});
  for (const Grid& grid : {Grid{1, 1, 1}, Grid{1, 4, 1}, Grid{2, 2, 1}})
    on_ranks(grid.ranks(), [&](Transport& transport) {
      const Schedule job = make_schedule(grid, "contiguous", mask);
      CpuDevice cpu;
      Timeline timeline;
      const Shape shape{2, 2, 4, 4, DType::f32, 0.5};
      const auto kernel = reference32(problem_of(shape, grid, job.lane_of(transport.rank()), mask.query_shift()));
      Attention attention(job, shape, {cpu, *kernel, transport, timeline});
      const Index rows = job.queries.rows(transport.rank()), keys = job.keys.rows(transport.rank());
      const Array q = Array::zeros(cpu, DType::f32, rows, 2, 4), k = Array::zeros(cpu, DType::f32, keys, 2, 4);
      const Array out(cpu, DType::f32, rows, 2, 4), lse(cpu, DType::f32, rows, 2, 1);
      for (float& x : out.elements<float>()) x = std::numeric_limits<float>::quiet_NaN();
      attention.forward(q, {k, k}, out, lse);
      for (Index i = 0; i < rows; ++i) {
        const bool sees = job.queries.position(transport.rank(), i) >= 8;
        EXPECT_EQ(std::isinf(*lse.rows().at<float>(i)), !sees);
        EXPECT_EQ(*out.rows().at<float>(i), 0.0F);
      }
    });
}

TEST(Attention, KeysAndValuesSideBySideAreNotCopiedAndGiveTheSame) {
  const Mask mask = Mask::parse("causal", {30, 30});
  const Schedule job = make_schedule({1, 2, 1}, "striped", mask);
  const Shape shape{2, 2, 4, 6, DType::f32, 0.5};
  const Dense dense = make_dense(shape, mask, 8);
  on_ranks(2, [&](Transport& transport) {
    const Rank r = transport.rank();
    CpuDevice cpu;
    Timeline timeline;
    const auto kernel = reference32(problem_of(shape, job.grid, 0, 0));
    Attention attention(job, shape, {cpu, *kernel, transport, timeline});
    const Array q = take(cpu, dense.q, shape.type, job.queries, r, 2, 4), k = take(cpu, dense.k, shape.type, job.keys, r, 2, 4),
                v = take(cpu, dense.v, shape.type, job.keys, r, 2, 6), block(cpu, shape.type, k.rows().tokens, 1, 2 * (4 + 6));
    const KeyValue views = Attention::views(block, 2, 4, 6);
    copy_rows(k, views.k);
    copy_rows(v, views.v);
    const Array out(cpu, DType::f32, 15, 2, 6), lse(cpu, DType::f32, 15, 2, 1), again(cpu, DType::f32, 15, 2, 6);
    attention.forward(q, {k, v}, out, lse);
    attention.forward(q, views, again, lse);
    EXPECT_TRUE(std::ranges::equal(out.elements<float>(), again.elements<float>()));
    EXPECT_LE(error_of(out, dense.out, job.queries, r), 1e-6);
  });
}

TEST(Attention, WhatDoesNotFitTogetherIsRefusedInASentence) {
  const Mask mask = Mask::parse("full", {4, 4});
  const Schedule job = make_schedule({1, 1, 1}, "contiguous", mask);
  on_ranks(1, [&](Transport& transport) {
    CpuDevice cpu;
    Timeline timeline;
    const Shape shape{2, 2, 4, 4, DType::f32, 0.5};
    const auto kernel = reference32(problem_of(shape, job.grid, 0, 0));
    Attention attention(job, shape, {cpu, *kernel, transport, timeline});
    const Array q(cpu, DType::f32, 3, 2, 4), out(cpu, DType::f32, 4, 2, 4), lse(cpu, DType::f32, 4, 2, 1);
    EXPECT_THROW(attention.forward(q, {q, q}, out, lse), Error);
    EXPECT_THROW(check(Shape{6, 4, 8, 8, DType::f32, 1}), Error);
    EXPECT_THROW(check(Shape{6, 2, 513, 8, DType::f32, 1}), Error);
    const auto other = reference32(problem_of({4, 2, 4, 4, DType::f32, 0.5}, job.grid, 0, 0));
    EXPECT_THROW(Attention(job, shape, {cpu, *other, transport, timeline}), Error);
  });
}

}  // namespace
}  // namespace annulus

#include <gtest/gtest.h>

#include "annulus/kernel/cpu.hpp"
#include "annulus/kernel/partial.hpp"
#include "support/engine_errors.hpp"
#include "support/plans.hpp"

// How other distributed attentions went wrong, each as a test that this one does not.

namespace annulus {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const std::vector<const char*> partitions{"contiguous", "zigzag", "striped", "balanced"};

struct NamedKernel {
  std::string name;
  MakeKernel make;
};

/// Every kernel that runs here, accumulating in f32.
std::vector<NamedKernel> kernels() {
  std::vector<NamedKernel> all{{"reference", reference32}};
  for (const std::string_view tier : cpu_tiers())
    if (cpu_tier_refusal(tier).empty())
      all.push_back({std::string(tier), [tier](const Problem& p) { return make_tiled_kernel(p, {1}, tier); }});
  return all;
}

// One row that has seen one key of score `score` and value `value`; -inf: none.
struct OneRow {
  explicit OneRow(double score, double value)
      : out{static_cast<float>(value)}, top{static_cast<float>(score)}, sum{score == -infinity ? 0.0F : 1.0F} {}
  Partial view() { return {one(out), one(top), one(sum)}; }
  static Rows one(float& x) { return dense_rows(&x, DType::f32, 1, 1, 1); }
  float out, top, sum;
};

TEST(FieldFailures, MergingRowsThatSawNothingIsNeverNaN) {
  for (const double left : {-infinity, -3.0})
    for (const double right : {-infinity, 2.0}) {
      OneRow a(left, left == -infinity ? 0 : 5), b(right, right == -infinity ? 0 : 7);
      merge(a.view(), b.view());
      finish(b.view(), OneRow::one(b.top));
      const double wa = std::exp(left), wb = std::exp(right), sum = wa + wb;
      EXPECT_NEAR(b.out, sum == 0 ? 0 : (5 * wa + 7 * wb) / sum, 1e-6) << left << " into " << right;
      if (sum == 0) {
        EXPECT_EQ(b.top, -infinity);
      } else {
        EXPECT_NEAR(b.top, std::log(sum), 1e-6) << left << " into " << right;
      }
    }
}

TEST(FieldFailures, MergingAcrossAJumpOfMoreThan88DoesNotOverflow) {
  for (const double jump : {87.0, 89.0, 104.0, 800.0, 1e6, 3e38})
    for (const bool upwards : {true, false}) {
      OneRow small(-jump, 5), large(jump, 7);
      OneRow& into = upwards ? small : large;
      merge((upwards ? large : small).view(), into.view());
      finish(into.view(), OneRow::one(into.top));
      EXPECT_EQ(into.out, 7) << jump;
      EXPECT_EQ(into.top, static_cast<float>(jump));
    }
}

TEST(FieldFailures, ScoresThatJumpFromBlockToBlockDoNotOverflowInAnyKernel) {
  // queries 300 times sharper than usual: the running maximum jumps by hundreds from one ring step to the next
  const Mask mask = Mask::parse("causal", {48, 48});
  const Dense dense = make_dense({2, 1, 16, 8, DType::f32, 0.25}, mask, 12, 300);
  double least = infinity, most = -infinity;
  for (const double lse : dense.lse) least = std::min(least, lse), most = std::max(most, lse);
  ASSERT_GT(most - least, 88);
  for (const auto& [name, make] : kernels()) {
    const Errors errors = run(dense, make_schedule({1, 4, 1}, "zigzag", mask), make);
    // a score of size S carries an absolute error of some eps S, which the exponential turns into a relative one
    EXPECT_LE(errors.forward(), 16 * 0x1p-24 * most) << name;
    EXPECT_TRUE(std::isfinite(errors.gradients())) << name;
  }
}

TEST(FieldFailures, FullyMaskedRowsAndRanksGiveNeutralResultsForwardAndBackward) {
  struct Empty {
    const char* terms;
    Extent extent;
  };
  for (const Empty& empty : {Empty{"causal", {12, 4}},               // two of four ranks see nothing
                             Empty{"full", {7, 0}},                  // there are no keys
                             Empty{"full", {0, 7}},                  // there are no queries
                             Empty{"causal+window:-1,3", {16, 16}},  // nobody sees anything
                             Empty{"documents+window:-2,5", {16, 16, {0, 2, 4, 6, 16}}},  // whole documents see nothing
                             Empty{"causal+window:-9,20", {16, 16}}})
    for (const auto& [name, make] : kernels())
      for (const Grid& grid : {Grid{1, 1, 1}, Grid{1, 4, 1}, Grid{2, 2, 1}, Grid{1, 2, 2}, Grid{4, 1, 1}})
        for (const char* partition : partitions) {
          const Mask mask = Mask::parse(empty.terms, empty.extent);
          SCOPED_TRACE(sentence(empty.terms, ", ", mask.queries(), " x ", mask.keys(), ", ", name, ", ", to_text(grid),
                                ", ", partition));
          const Errors errors =
              run(make_dense({2, 2, 4, 4, DType::f32, 0.5}, mask, 1), make_schedule(grid, partition, mask), make);
          const Bounds bounds = bounds_of(name, DType::f32);
          ASSERT_LE(errors.forward(), bounds.out);
          ASSERT_LE(errors.gradients(), bounds.gradients);
          ASSERT_LE(errors.statistics(), bounds.statistics);
        }
}

TEST(FieldFailures, ErrorsOf16BitInputsDoNotGrowWithTheNumberOfRanks) {
  for (const DType type : {DType::bf16, DType::f16}) {
    const Mask mask = Mask::parse("causal", {128, 128});
    const Dense dense = make_dense({2, 1, 16, 16, type, 0.25}, mask, 6);
    for (const auto& [name, make] : kernels())
      for (const int ranks : {1, 2, 16}) {  // partials rounded to 16 bits between hops would be wrong by 1e-3
        const Errors errors = run(dense, make_schedule({1, ranks, 1}, "zigzag", mask), make);
        // probabilities rounded for one product, which is no rounding between hops, err by 2^-8 and are the same everywhere
        const Bounds bounds = bounds_of(name, type);
        EXPECT_LE(errors.out, bounds.out) << name << ", " << name_of(type) << " on " << ranks << " ranks";
        EXPECT_LE(errors.lse, bounds.lse) << name << ", " << name_of(type) << " on " << ranks << " ranks";
        EXPECT_LE(errors.gradients(), bounds.gradients) << name << ", " << name_of(type) << " on " << ranks << " ranks";
      }
  }
}

TEST(FieldFailures, BackwardUsesTheKeysAndValuesOfEveryHop) {
  // blocks differ from one another by so much that the wrong one could not go unnoticed
  const Mask mask = Mask::parse("full", {40, 40});
  const Dense dense = make_dense({2, 1, 6, 5, DType::f64, 0.4}, mask, 14, 2);
  for (const Grid& grid : {Grid{1, 2, 1}, Grid{1, 5, 1}, Grid{1, 8, 1}, Grid{1, 4, 2}, Grid{2, 4, 1}}) {
    const Errors errors = run(dense, make_schedule(grid, "contiguous", mask), reference64);
    EXPECT_LE(errors.dq, 1e-13) << to_text(grid);
    EXPECT_LE(errors.dk, 1e-13) << to_text(grid);
    EXPECT_LE(errors.dv, 1e-13) << to_text(grid);
  }
}

TEST(FieldFailures, PackedDocumentsNeedNotFitShardsOrBePadded) {
  // lengths 1, 0, 4, 12, 1, 22, 1: none is a multiple of anything, many cross a border between shards
  const Extent extent{41, 41, {0, 1, 1, 5, 17, 18, 40, 41}};
  for (const char* terms : {"documents", "causal+documents"})
    for (const int ranks : {2, 3, 4, 8})
      for (const char* partition : partitions) {
        const Mask mask = Mask::parse(terms, extent);
        const Errors errors = run(make_dense({2, 1, 5, 4, DType::f64, 0.4}, mask, 3),
                                  make_schedule({1, ranks, 1}, partition, mask), reference64);
        EXPECT_LE(errors.worst(), 1e-13) << terms << ", " << partition << " on " << ranks << " ranks";
      }
}

TEST(FieldFailures, LengthsAndHeadsNeedNotDivide) {
  for (const auto& [query_heads, kv_heads] : {std::pair<Index, Index>{7, 7}, {9, 3}, {5, 1}, {2, 2}})
    for (const Grid& grid : {Grid{4, 1, 1}, Grid{5, 1, 1}, Grid{3, 2, 1}, Grid{8, 1, 1}, Grid{2, 3, 1}}) {
      const Mask mask = Mask::parse("causal", {37, 37});
      const Schedule job = make_schedule(grid, "zigzag", mask);
      SCOPED_TRACE(sentence(query_heads, ":", kv_heads, " heads on ", to_text(grid)));
      EXPECT_LE(run(make_dense({query_heads, kv_heads, 3, 2, DType::f64, 0.4}, mask, 4), job, reference64).worst(),
                1e-13);
      const Dense dense = make_dense({query_heads, kv_heads, 3, 2, DType::f32, 0.4}, mask, 4);
      for (const auto& [name, make] : kernels()) {  // some lanes have no heads at all
        const Errors errors = run(dense, job, make);
        const Bounds bounds = bounds_of(name, DType::f32);
        EXPECT_LE(errors.forward(), bounds.out) << name;
        EXPECT_LE(errors.gradients(), bounds.gradients) << name;
        EXPECT_LE(errors.statistics(), bounds.statistics) << name;
      }
    }
}

TEST(FieldFailures, PlansOfMillionsOfTokensDoNotOverflow32Bits) {
  for (const Index n : {Index{46'341}, Index{4} << 20, Index{1} << 31})
    for (const char* partition : partitions) {
      const Mask mask = Mask::parse("causal", {n, n});
      const Schedule job = make_schedule({1, 8, 1}, partition, mask);
      Index pairs = 0, rows = 0, last = 0;
      for (const Plan& plan : plans_of(job.planner)) {
        pairs += plan.pairs();
        rows += plan.query_rows;
        for (const Step& step : plan.steps)
          for (const Tile& tile : step.tiles) last = std::max(last, tile.q_at + (tile.q.count() - 1) * tile.stride);
      }
      EXPECT_EQ(pairs, n % 2 == 0 ? n / 2 * (n + 1) : (n + 1) / 2 * n) << partition;
      EXPECT_EQ(rows, n) << partition;
      EXPECT_EQ(last, n - 1) << partition;
    }
  EXPECT_EQ(dense_rows(nullptr, DType::f32, Index{4} << 20, 64, 128).bytes(), Index{1} << 37);
}

TEST(FieldFailures, PositionsBeyond32BitsReachTheTracesExactly) {
  // a job of 24 tokens, moved to where 32-bit positions would have wrapped round
  constexpr Index offset = (Index{1} << 33) + 5;
  const Mask mask = Mask::parse("causal", {24, 24});
  const Schedule job = make_schedule({1, 3, 1}, "striped", mask);
  const AttentionShape shape{1, 1, 4, 4, DType::f32, 0.5};
  const Dense dense = make_dense(shape, mask, 2);
  for (const auto& [name, make_kernel] : kernels())
    on_ranks(3, [&, make = make_kernel, bounds = bounds_of(name, DType::f32)](Transport& transport) {
      const Rank r = transport.rank();
      Plan plan = job.plan_of(r);
      for (Step& step : plan.steps)
        for (Tile& tile : step.tiles) tile.q_at += offset, tile.k_at += offset;
      CpuDevice cpu;
      Timeline timeline;
      const auto kernel = make(problem_of(shape, job.grid, 0, 0));
      Attention attention(job, plan, shape, {cpu, *kernel, transport, timeline});
      const Array q = take(cpu, dense.q, DType::f32, job.queries, r, 1, 4),
                  k = take(cpu, dense.k, DType::f32, job.keys, r, 1, 4),
                  v = take(cpu, dense.v, DType::f32, job.keys, r, 1, 4);
      const Array out(cpu, DType::f32, 8, 1, 4), lse(cpu, DType::f32, 8, 1, 1);
      attention.forward(q, {k, v}, out, lse);
      EXPECT_LE(error_of(out, dense.out, job.queries, r), bounds.out);
      const Array distance = Array::zeros(cpu, DType::f32, 8, 1, 1), score(cpu, DType::f32, 8, 1, 1);
      for (float& x : score.elements<float>()) x = -std::numeric_limits<float>::infinity();
      std::vector<Index> index(8, -1);
      Observation into;
      into.mean_distance = distance;
      into.top_score = score;
      into.top_index = index;
      attention.observe(q, k, lse, into);
      EXPECT_LE(error_of(distance, dense.distance, job.queries, r), bounds.statistics);
      for (Index i = 0; i < 8; ++i) {
        const Index query = job.queries.position(r, i);
        const double* p = &dense.probability[static_cast<std::size_t>(query * 24)];
        EXPECT_EQ(index[static_cast<std::size_t>(i)], offset + (std::max_element(p, p + 24) - p));
      }
    });
}

TEST(FieldFailures, ASlidingWindowIsTheSameTableOfDistancesInEveryKernel) {
  // keys of zero see every visible key alike, and each value names its key: out shows who was seen
  constexpr Index n = 40;
  const AttentionShape shape{1, 1, 4, n, DType::f32, 1};
  const auto check = [&](const char* terms, const std::function<bool(Index, Index)>& seen) {
    const Mask mask = Mask::parse(terms, {n, n});
    for (const auto& [kernel_name, make_kernel] : kernels())
      for (const char* partition : partitions) {
        const Schedule job = make_schedule({1, 4, 1}, partition, mask);
        on_ranks(4, [&, make = make_kernel, name = kernel_name](Transport& transport) {
          const Rank r = transport.rank();
          CpuDevice cpu;
          Timeline timeline;
          const auto kernel = make(problem_of(shape, job.grid, 0, 0));
          Attention attention(job, shape, {cpu, *kernel, transport, timeline});
          const Index rows = job.queries.rows(r);
          const Array zero = Array::zeros(cpu, DType::f32, rows, 1, 4), v = Array::zeros(cpu, DType::f32, rows, 1, n);
          for (Index j = 0; j < rows; ++j) v.rows().at<float>(j)[job.keys.position(r, j)] = 1;
          const Array out(cpu, DType::f32, rows, 1, n), lse(cpu, DType::f32, rows, 1, 1);
          attention.forward(zero, {zero, v}, out, lse);
          for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < n; ++j) {
              const Index query = job.queries.position(r, i);
              EXPECT_EQ(out.rows().at<float>(i)[j] > 0, seen(query, j))
                  << terms << ", " << name << ", " << partition << ": query " << query << ", key " << j;
            }
        });
      }
  };
  check("window:0,0", [](Index i, Index j) { return i == j; });
  check("window:1,1", [](Index i, Index j) { return std::abs(i - j) <= 1; });
  check("window:16,16", [](Index i, Index j) { return std::abs(i - j) <= 16; });
  check("causal+window:15,0", [](Index i, Index j) { return j <= i && std::abs(i - j) <= 15; });
  check("window:7,9", [](Index i, Index j) { return std::abs(i - j) <= (j <= i ? 7 : 9); });
}

}  // namespace
}  // namespace annulus

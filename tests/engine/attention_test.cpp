#include "annulus/engine/attention.hpp"

#include <gtest/gtest.h>

#include <type_traits>

#include "annulus/kernel/cpu.hpp"
#include "support/engine_errors.hpp"
#include "support/sanitized.hpp"

namespace annulus {
namespace {

const std::vector<Grid> grids{{1, 1, 1},
                              {1, 2, 1},
                              {1, 3, 1},
                              {2, 1, 1},
                              {1, 4, 1},
                              {2, 2, 1},
                              {4, 1, 1},
                              {1, 2, 2},
                              {1, 5, 1},
                              {3, 2, 1},
                              {1, 7, 1},
                              {1, 8, 1},
                              {2, 4, 1},
                              {4, 2, 1},
                              {8, 1, 1},
                              {1, 4, 2},
                              {2, 2, 2},
                              {1, 1, 1, Travel::gather},
                              {1, 4, 1, Travel::gather},
                              {1, 3, 2, Travel::gather},
                              {2, 2, 2, Travel::gather},
                              {1, 1, 1, Travel::queries},
                              {1, 4, 1, Travel::queries},
                              {1, 7, 1, Travel::queries},
                              {2, 3, 1, Travel::queries},
                              {1, 2, 4, Travel::queries},
                              {1, 1, 1, Travel::tree},
                              {1, 2, 1, Travel::tree},
                              {1, 3, 1, Travel::tree},
                              {1, 6, 1, Travel::tree},
                              {2, 4, 1, Travel::tree},
                              {1, 7, 1, Travel::tree},
                              {1, 8, 1, Travel::tree}};
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
  const AttentionShape shape{6, 3, 5, 4, DType::f64, 0.4};
  for (const Mask& mask : masks(37)) {
    const Dense dense = make_dense(shape, mask, 5);
    for (const Grid& grid : grids)
      for (const char* partition : partitions) {
        SCOPED_TRACE(sentence(mask.name(), " ", strategy_of(grid), " ", to_text(grid), " ", partition));
        const Errors errors = run(dense, make_schedule(grid, partition, mask), reference64);
        ASSERT_LE(errors.forward(), 1e-13);
        ASSERT_LE(errors.gradients(), 1e-13);
        ASSERT_LE(errors.statistics(), 1e-13);
      }
  }
}

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
        SCOPED_TRACE(
            sentence(n, " tokens ", query_heads, ":", kv_heads, " heads ", strategy_of(grid), " ", to_text(grid)));
        const Errors errors = run(make_dense({query_heads, kv_heads, 3, 2, DType::f64, 0.7}, mask, 3),
                                  make_schedule(grid, "zigzag", mask), reference64);
        ASSERT_LE(errors.worst(), 1e-13);
      }
}

TEST(Attention, CrossAttentionAlignsTheEnds) {
  for (const auto& [queries, keys] : {std::pair<Index, Index>{5, 29}, {29, 5}, {1, 16}, {16, 1}, {3, 0}, {0, 3}})
    for (const char* terms : {"full", "causal", "window:4,1", "causal+window:3,0+sink:2"})
      for (const char* partition : partitions)
        for (const Grid& grid :
             {Grid{1, 4, 1}, Grid{2, 2, 1}, Grid{1, 2, 2}, Grid{1, 3, 1}, Grid{1, 2, 2, Travel::gather},
              Grid{1, 4, 1, Travel::queries}, Grid{2, 2, 1, Travel::queries}, Grid{1, 4, 1, Travel::tree},
              Grid{2, 3, 1, Travel::tree}}) {
          const Mask mask = Mask::parse(terms, {queries, keys});
          SCOPED_TRACE(
              sentence(queries, " x ", keys, " ", terms, " ", partition, " ", strategy_of(grid), " ", to_text(grid)));
          const Errors errors = run(make_dense({2, 2, 4, 3, DType::f64, 0.5}, mask, 9),
                                    make_schedule(grid, partition, mask), reference64);
          ASSERT_LE(errors.worst(), 1e-13);
        }
}

// Delays and reordering change nothing; a lost message is a communication error after the deadline, never a hang.
TEST(Attention, TimingDoesNotChangeResults) {
  const Mask mask = Mask::parse("causal+window:9,0+sink:3", {41, 41});
  const Dense dense = make_dense({4, 2, 5, 4, DType::f64, 0.5}, mask, 2);
  for (const Grid& grid : {Grid{1, 4, 1}, Grid{2, 2, 1}, Grid{1, 2, 2}, Grid{1, 2, 2, Travel::gather},
                           Grid{1, 4, 1, Travel::queries}, Grid{1, 3, 1, Travel::tree}})
    for (std::uint64_t seed = 1; seed < 6; ++seed) {
      const Errors errors = run(dense, make_schedule(grid, "zigzag", mask), reference64, {0.002, 0, seed});
      ASSERT_LE(errors.worst(), 1e-13);
    }
}

TEST(Attention, ALostMessageEndsInACommunicationErrorOnEveryRank) {
  const Mask mask = Mask::parse("causal", {40, 40});
  const Schedule job = make_schedule({1, 4, 1}, "zigzag", mask);
  try {
    on_ranks(4,
             [&](Transport& transport) {
               CpuDevice cpu;
               Timeline timeline;
               const AttentionShape shape{1, 1, 4, 4, DType::f32, 0.5};
               const auto kernel = reference32(problem_of(shape, job.grid, 0, 0));
               Attention attention(job, shape, {cpu, *kernel, transport, timeline});
               const Index rows = job.queries.rows(transport.rank());
               const Array q = Array::zeros(cpu, DType::f32, rows, 1, 4), out(cpu, DType::f32, rows, 1, 4),
                           lse(cpu, DType::f32, rows, 1, 1);
               attention.forward(q, {q, q}, out, lse);
             },
             0.3, {0, 0.5, 4});
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

// Every tier of the CPU kernel that runs here, in the engine: the bounds hold for every mask, partition and rank count.
TEST(Attention, TheTiledKernelsKeepTheBoundsOnAnyNumberOfRanks) {
  constexpr int one_in = sanitized ? 5 : 1;  // cases, without favour: 5 divides no count below
  int cases = 0;
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const char* terms : {"causal", "full", "causal+window:20,0+sink:3", "causal+documents"}) {
      const Mask mask = Mask::parse(terms, {233, 233, {0, 40, 41, 160, 233}});
      const Dense dense = make_dense({4, 2, 24, 20, type, 0.2}, mask, 6);
      for (const Grid& grid :
           {Grid{1, 1, 1}, Grid{1, 2, 1}, Grid{2, 1, 1}, Grid{2, 2, 2}, Grid{1, 8, 1}, Grid{1, 3, 1},
            Grid{1, 3, 1, Travel::gather}, Grid{1, 3, 1, Travel::queries}, Grid{1, 3, 1, Travel::tree}})
        for (const char* partition : partitions)
          for (const std::string_view tier : cpu_tiers()) {
            if (!cpu_tier_refusal(tier).empty() || cases++ % one_in != 0) continue;
            SCOPED_TRACE(sentence(tier, " ", name_of(type), " ", terms, " ", strategy_of(grid), " ", to_text(grid), " ",
                                  partition));
            const MakeKernel tiled = [&](const Problem& p) { return make_tiled_kernel(p, {1}, tier); };
            const Errors errors = run(dense, make_schedule(grid, partition, mask), tiled);
            // P rounded to bf16 errs by 2^-8 of the sums of |p v|, and delta, which gradients start from, with it
            const Bounds bounds = bounds_of(tier, type, 0x1p-7);
            ASSERT_LE(errors.out, bounds.out);
            ASSERT_LE(errors.lse, bounds.lse);
            ASSERT_LE(errors.gradients(), bounds.gradients);
            ASSERT_LE(errors.statistics(), bounds.statistics);
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
      const AttentionShape shape{2, 2, 4, 4, DType::f32, 0.5};
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
  const AttentionShape shape{2, 2, 4, 6, DType::f32, 0.5};
  const Dense dense = make_dense(shape, mask, 8);
  on_ranks(2, [&](Transport& transport) {
    const Rank r = transport.rank();
    CpuDevice cpu;
    Timeline timeline;
    const auto kernel = reference32(problem_of(shape, job.grid, 0, 0));
    Attention attention(job, shape, {cpu, *kernel, transport, timeline});
    const Array q = take(cpu, dense.q, shape.type, job.queries, r, 2, 4),
                k = take(cpu, dense.k, shape.type, job.keys, r, 2, 4),
                v = take(cpu, dense.v, shape.type, job.keys, r, 2, 6),
                block(cpu, shape.type, k.rows().tokens, 1, 2 * (4 + 6));
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

// One rank; 4 queries and keys, 2 heads of 4 channels, f32.
void with_small_attention(const std::function<void(Attention&, CpuDevice&)>& work) {
  const Mask mask = Mask::parse("full", {4, 4});
  const Schedule job = make_schedule({1, 1, 1}, "contiguous", mask);
  on_ranks(1, [&](Transport& transport) {
    CpuDevice cpu;
    Timeline timeline;
    const AttentionShape shape{2, 2, 4, 4, DType::f32, 0.5};
    const auto kernel = reference32(problem_of(shape, job.grid, 0, 0));
    Attention attention(job, shape, {cpu, *kernel, transport, timeline});
    work(attention, cpu);
  });
}

TEST(Attention, WhatDoesNotFitTogetherIsRefusedInASentence) {
  with_small_attention([](Attention& attention, CpuDevice& cpu) {
    const Array q(cpu, DType::f32, 3, 2, 4), out(cpu, DType::f32, 4, 2, 4), lse(cpu, DType::f32, 4, 2, 1);
    EXPECT_THROW(attention.forward(q, {q, q}, out, lse), Error);
    EXPECT_THROW(check(AttentionShape{6, 4, 8, 8, DType::f32, 1}), Error);
    EXPECT_THROW(check(AttentionShape{6, 2, 513, 8, DType::f32, 1}), Error);
  });
}

TEST(Attention, AKernelMadeForAnotherProblemIsRefused) {
  const Mask mask = Mask::parse("full", {4, 4});
  const Schedule job = make_schedule({1, 1, 1}, "contiguous", mask);
  on_ranks(1, [&](Transport& transport) {
    CpuDevice cpu;
    Timeline timeline;
    const AttentionShape shape{4, 2, 4, 4, DType::f32, 0.5};
    const auto take = [&](const Problem& problem) {
      const auto kernel = reference32(problem);
      const Attention attention(job, shape, {cpu, *kernel, transport, timeline});
    };
    const Problem right = problem_of(shape, job.grid, 0, 0);
    EXPECT_NO_THROW(take(right));
    std::vector<Problem> wrong(9, right);
    wrong[0].query_heads = 2;
    wrong[1].kv_heads = 4;
    wrong[2].channels = 8;
    wrong[3].value_channels = 8;
    wrong[4].group = 4;
    wrong[5].phase = 1;
    wrong[6].type = DType::bf16;
    wrong[7].softmax_scale = 0.25;
    wrong[8].query_shift = 1;
    for (const Problem& problem : wrong) EXPECT_THROW(take(problem), Error);
  });
}

TEST(Attention, RowsThatAreNotThereOrOverlapAreRefusedBeforeAnybodyLooksAtThem) {
  with_small_attention([](Attention& attention, CpuDevice& cpu) {
    const auto zeros = [&](Index channels) { return Array::zeros(cpu, DType::f32, 4, 2, channels); };
    std::vector<Array> arrays;
    for (const Index channels : {4, 4, 4, 4, 4, 1, 4, 4, 4}) arrays.push_back(zeros(channels));
    const auto pass = [&](std::size_t n, const std::function<void(Rows&)>& spoil) {
      std::vector<Rows> r(arrays.begin(), arrays.end());
      spoil(r[n]);
      const bool of_forward = n < 3 || n == 4 || n == 5;
      if (of_forward) {
        EXPECT_THROW(attention.forward(r[0], {r[1], r[2]}, r[4], r[5]), Error);
      }
      EXPECT_THROW(attention.backward(r[0], {r[1], r[2]}, r[3], r[4], r[5], {r[6], r[7], r[8]}), Error);
      if (n < 2 || n == 5) {
        EXPECT_THROW(attention.observe(r[0], r[1], r[5], {}), Error);
      }
    };
    for (std::size_t n = 0; n < arrays.size(); ++n) {
      SCOPED_TRACE(n);
      pass(n, [](Rows& rows) { rows = {}; });  // forgotten
      pass(n, [](Rows& rows) { rows.data = nullptr; });
      pass(n, [](Rows& rows) { rows.pitch = 0; });
      pass(n, [](Rows& rows) { rows.pitch -= 4; });
      pass(n, [](Rows& rows) { rows.pitch += 2; });
      pass(n, [](Rows& rows) { rows.data += 2; });
      pass(n, [](Rows& rows) { rows.tokens = 3; });
      pass(n, [](Rows& rows) { rows.type = DType::bf16; });
      pass(n, [](Rows& rows) { rows.place = Place::cuda; });
    }
  });
}

TEST(Attention, AScheduleThatIsAboutToGoIsNotBorrowed) {
  static_assert(std::is_constructible_v<Attention, const Schedule&, const AttentionShape&, const Machine&>);
  static_assert(!std::is_constructible_v<Attention, Schedule, const AttentionShape&, const Machine&>);
  static_assert(!std::is_constructible_v<Attention, Schedule, Plan, const AttentionShape&, const Machine&>);
  static_assert(!std::is_constructible_v<HostAttention, Schedule, const AttentionShape&, const Machine&>);
}

}  // namespace
}  // namespace annulus

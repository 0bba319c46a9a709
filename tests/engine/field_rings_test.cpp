#include <gtest/gtest.h>

#include <future>
#include <map>

#include "annulus/kernel/cpu.hpp"
#include "support/engine_errors.hpp"
#include "support/plans.hpp"

// How the exchange of other distributed attentions went wrong, each as a test that this one does not.

namespace annulus {
namespace {

const std::vector<const char*> partitions{"contiguous", "zigzag", "striped", "balanced"};

// Who receives what from whom in a step, counted up by one side and down by the other.
using Exchange = std::map<std::tuple<std::size_t, Rank, Rank, Index, Index>, int>;
void count_up(Exchange& open, std::size_t step, Rank from, Rank to, const Move& move, int by) {
  for (const Range& rows : move.rows) open[{step, from, to, rows.begin, rows.end}] += by;
}

TEST(FieldFailures, EverySendOfARingOf16HasItsReceive) {
  for (const char* terms : {"full", "causal", "causal+window:70,0+sink:4", "causal+documents", "window:40,90"})
    for (const char* partition : partitions) {
      const Mask mask = Mask::parse(terms, {259, 259, {0, 3, 100, 101, 202, 259}});
      const Partition shards = make_partition(partition, 259, 16, mask);
      for (const Grid& grid : {Grid{1, 16, 1}, Grid{1, 4, 4}, Grid{1, 8, 2}, Grid{1, 2, 8}}) {
        Exchange blocks, gradients;
        for (const Plan& plan : plans_of(Planner(grid, shards, shards, mask)))
          for (std::size_t s = 0; s < plan.steps.size(); ++s) {
            const Step& step = plan.steps[s];
            const Rank me = plan.seat;
            if (step.forward) count_up(blocks, s, me, step.forward->seat, *step.forward, 1);
            for (const Move& move : step.lend) count_up(blocks, s, me, move.seat, move, 1);
            for (const Move& move : step.arrive) count_up(blocks, s, move.seat, me, move, -1);
            for (const Move& move : step.give_back) count_up(gradients, s, me, move.seat, move, 1);
            for (const Move& move : step.homecoming) count_up(gradients, s, move.seat, me, move, -1);
          }
        for (const Exchange* exchange : {&blocks, &gradients})
          for (const auto& [message, open] : *exchange)
            ASSERT_EQ(open, 0) << terms << ", " << to_text(grid) << ", " << partition << ": step "
                               << std::get<0>(message) << " from " << std::get<1>(message) << " to "
                               << std::get<2>(message);
      }
    }
}

TEST(FieldFailures, ARingOf16ComesToItsEnd) {
  const Mask mask = Mask::parse("causal+window:70,0+sink:4", {131, 131});
  const Dense dense = make_dense({4, 2, 4, 3, DType::f64, 0.4}, mask, 7);
  for (const Grid& grid : {Grid{1, 16, 1}, Grid{1, 4, 4}, Grid{2, 8, 1}})
    EXPECT_LE(run(dense, make_schedule(grid, "zigzag", mask), reference64).worst(), 1e-13) << to_text(grid);
}

/// Counts how often somebody looks after an exchange before waiting for it.
class CountingTransport final : public Transport {
 public:
  explicit CountingTransport(Transport& inner) : inner_(inner) {}
  Rank rank() const override { return inner_.rank(); }
  int ranks() const override { return inner_.ranks(); }
  std::string_view name() const override { return "counting"; }
  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override {
    return Pending(std::make_unique<Batch>(inner_.start(sends, recvs), polls));
  }
  void fail(const Error& reason) noexcept override { inner_.fail(reason); }
  int polls = 0;

 private:
  class Batch final : public Pending::Batch {
   public:
    Batch(Pending inner, int& polls) : inner_(std::move(inner)), polls_(polls) {}
    bool poll() override {
      ++polls_;
      return inner_.poll();
    }
    void wait() override { inner_.wait(); }

   private:
    Pending inner_;
    int& polls_;
  };
  Transport& inner_;
};

// MPI moves nothing unless it is called: the engine looks after the exchange after every 192 rows at the latest.
/// A kernel that computes in one go, whatever its inner one would do.
class Hasty final : public Kernel {
 public:
  explicit Hasty(Kernel& inner) : inner_(inner) {}
  std::string_view name() const override { return inner_.name(); }
  const Problem& problem() const override { return inner_.problem(); }
  DType accumulator() const override { return inner_.accumulator(); }
  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    inner_.forward(tiles, q, kv, into);
  }
  void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) override {
    inner_.backward(tiles, saved, kv, into);
  }
  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    inner_.observe(tiles, q, k, lse, into);
  }

 private:
  Kernel& inner_;
};

TEST(FieldFailures, TheExchangeIsLookedAfterBetweenBatchesOfWork) {
  constexpr Index rows = 192 * 3;
  const Mask mask = Mask::parse("full", {2 * rows, 2 * rows});
  const Schedule job = make_schedule({1, 2, 1}, "contiguous", mask);
  const AttentionShape shape{1, 1, 1, 1, DType::f32, 1};
  for (const bool by_itself : {false, true})
    on_ranks(2, [&](Transport& inner) {
      CountingTransport transport(inner);
      CpuDevice cpu;
      Timeline timeline;
      const Problem problem = problem_of(shape, job.grid, 0, 0);
      const auto tiled = make_tiled_kernel(problem, {1}, "portable");
      Hasty hasty(*tiled);
      Kernel& kernel = by_itself ? *tiled : hasty;
      Index reported = 0;
      Attention attention(job, shape, {cpu, kernel, transport, timeline, 1.0, [&](Index pairs) { reported += pairs; }});
      const Array x = Array::zeros(cpu, DType::f32, rows, 1, 1), out(cpu, DType::f32, rows, 1, 1),
                  lse(cpu, DType::f32, rows, 1, 1);
      attention.forward(x, {x, x}, out, lse);
      if (by_itself) EXPECT_GE(transport.polls, 2 * 2);  // two steps: after every item, and at the end
      else EXPECT_EQ(transport.polls, 2 * 3);            // two steps of three batches
      EXPECT_EQ(reported, 2 * rows * rows);
      const Index before = transport.polls;
      const Array dq(cpu, DType::f32, rows, 1, 1), dk(cpu, DType::f32, rows, 1, 1), dv(cpu, DType::f32, rows, 1, 1);
      attention.backward(x, {x, x}, x, out, lse, {dq, dk, dv});
      if (by_itself) EXPECT_GE(transport.polls - before, 2 * 2);
      else EXPECT_EQ(transport.polls - before, 2 * 3);
      EXPECT_EQ(reported, 4 * rows * rows);
    });
}

/// One attention of one rank with all it needs, so that several can take turns.
struct Job {
  Job(const Dense& whole, const Schedule& plan, Transport& transport)
      : dense(whole),
        schedule(plan),
        rank(transport.rank()),
        kernel(reference64(problem_of(s, plan.grid, plan.lane_of(rank), 0))),
        attention(plan, s, {cpu, *kernel, transport, timeline}) {}
  void forward() { attention.forward(q, {k, v}, out, lse); }
  void backward() { attention.backward(q, {k, v}, dout, out, lse, {dq, dk, dv}); }
  double error() const {
    return std::max({error_of(out, dense.out, schedule.queries, rank), error_of(dq, dense.dq, schedule.queries, rank),
                     error_of(dk, dense.dk, schedule.keys, rank), error_of(dv, dense.dv, schedule.keys, rank)});
  }
  Array mine(const std::vector<double>& x, Index heads, Index c) {
    return take(cpu, x, s.type, schedule.queries, rank, heads, c);
  }
  Array room(Index heads, Index c) { return {cpu, DType::f64, schedule.queries.rows(rank), heads, c}; }

  const Dense& dense;
  const Schedule& schedule;
  const AttentionShape& s = dense.shape;
  Rank rank;
  CpuDevice cpu;
  Timeline timeline;
  std::unique_ptr<Kernel> kernel;
  Attention attention;
  Array q = mine(dense.q, s.query_heads, s.channels), k = mine(dense.k, s.kv_heads, s.channels),
        v = mine(dense.v, s.kv_heads, s.value_channels), dout = mine(dense.dout, s.query_heads, s.value_channels);
  Array out = room(s.query_heads, s.value_channels), lse = room(s.query_heads, 1), dq = room(s.query_heads, s.channels),
        dk = room(s.kv_heads, s.channels), dv = room(s.kv_heads, s.value_channels);
};

TEST(FieldFailures, AttentionsOfDifferentShapesTakeTurnsOnTheSameRanks) {
  const Mask small = Mask::parse("causal", {21, 21}), large = Mask::parse("window:5,3", {50, 50});
  const Dense a = make_dense({6, 3, 5, 4, DType::f64, 0.4}, small, 1),
              b = make_dense({4, 4, 3, 7, DType::f64, 0.7}, large, 2);
  const Schedule by_heads = make_schedule({2, 2, 1}, "zigzag", small),
                 ring = make_schedule({1, 4, 1}, "striped", large);
  on_ranks(4, [&](Transport& transport) {
    Job one(a, by_heads, transport), other(b, ring, transport);
    one.forward();
    other.forward();
    other.backward();
    one.backward();
    EXPECT_LE(one.error(), 1e-13);
    EXPECT_LE(other.error(), 1e-13);
  });
}

TEST(FieldFailures, TwoJobsOfOneProcessDoNotShareAnything) {
  const Mask small = Mask::parse("causal", {21, 21}), large = Mask::parse("full", {34, 34});
  const Dense a = make_dense({6, 3, 5, 4, DType::f64, 0.4}, small, 1),
              b = make_dense({1, 1, 8, 2, DType::f64, 0.7}, large, 2);
  auto other = std::async(std::launch::async, [&] {
    return run(b, make_schedule({1, 3, 1}, "striped", large), reference64).worst();
  });
  const double worst = run(a, make_schedule({2, 2, 1}, "zigzag", small), reference64).worst();
  EXPECT_LE(worst, 1e-13);
  EXPECT_LE(other.get(), 1e-13);
}

}  // namespace
}  // namespace annulus

#include <gtest/gtest.h>

#include "kernel/support.hpp"

// Every tier that runs here against the naive float64 kernel on the same (rounded) inputs.
//
// Forward bound, relative to the row's largest sum of |p v| (relative to |out| nothing can hold: out may cancel to 0).
// With u = 2^-24: a score is a sum of d products whose partial sums grow to about sqrt(d) before the scale 1/sqrt(d),
// so in the problems below its error has a standard deviation of about u sqrt(d)/3; where one key dominates a row it
// does not average out, and four deviations are 4/3 u sqrt(d). The exponential adds 2 u, the sums of a chunk
// sqrt(128)/2 u = 6 u: 1e-6 = 17 u up to d = 128.

namespace annulus::test {
namespace {

constexpr double forward_bound = 1e-6, gradient_bound = 5e-6;

double forward_bound_of(Index channels) {
  return std::max(forward_bound, 4.0 / 3 * 0x1p-24 * std::sqrt(static_cast<double>(channels)));
}

struct ForwardResult {
  PartialSheets partial;
  Sheet lse;
};

ForwardResult forward_by(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Rows& v, Index gap = 0) {
  const Problem& p = in.problem;
  ForwardResult r{{kernel.accumulator(), in.queries(), p.query_heads, p.value_channels, gap},
                  {kernel.accumulator(), in.queries(), p.query_heads, 1}};
  kernel.forward(tiles, in.q, {in.k, v}, r.partial.view());
  return r;
}

/// What an exact kernel finds, and the sums of |p v| that errors are measured against.
struct Truth {
  Truth(std::span<const Tile> tiles, const Inputs& in)
      : kernel(make_reference_kernel(in.problem)),
        forward(forward_by(*kernel, tiles, in, in.v)),
        magnitude(forward),
        delta(DType::f64, in.queries(), in.problem.query_heads, 1) {
    Sheet absolute(in.v);
    absolute.each([&](Index i, Index h, Index c) { return std::abs(in.v.at(i, h, c)); });
    magnitude = Sheets(forward_by(*kernel, tiles, in, absolute));
    finish(forward.partial.view(), forward.lse);
    row_dot(in.dout, forward.partial.out, delta);
  }
  struct Sheets {  // so that a result can be replaced
    explicit Sheets(const ForwardResult& r) : value(std::make_unique<ForwardResult>(r)) {
      finish(value->partial.view(), value->lse);
    }
    Sheets& operator=(Sheets&&) = default;
    std::unique_ptr<ForwardResult> value;
  };
  std::unique_ptr<Kernel> kernel;
  ForwardResult forward;
  Sheets magnitude;
  Sheet delta;
};

void expect_forward(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Truth& truth,
                    double at_least = 0) {
  const Problem& p = in.problem;
  const double bound = std::max(at_least, forward_bound_of(p.channels));
  ForwardResult result = forward_by(kernel, tiles, in, in.v, 7);
  finish(result.partial.view(), result.lse);
  for (Index i = 0; i < in.queries(); ++i)
    for (Index h = 0; h < p.query_heads; ++h) {
      const double lse = truth.forward.lse.at(i, h);
      if (lse == minus_infinity) {
        EXPECT_EQ(result.lse.at(i, h), minus_infinity) << "row " << i << " head " << h;
      } else {
        EXPECT_NEAR(result.lse.at(i, h), lse, bound * (2 + std::abs(lse))) << "row " << i << " head " << h;
      }
      double error = 0, high = 0;
      for (Index c = 0; c < p.value_channels; ++c) {
        const double difference = std::abs(result.partial.out.at(i, h, c) - truth.forward.partial.out.at(i, h, c));
        if (!(difference <= error)) error = difference;  // NaN sticks
        high = std::max(high, truth.magnitude.value->partial.out.at(i, h, c));
      }
      ASSERT_LE(error, bound * high) << "row " << i << " head " << h;
    }
}

/// The f32 statistics of the forward pass that backward and observe start from.
Sheet rounded(const Rows& from, Index gap = 0) {
  Sheet to(DType::f32, from.tokens, from.heads, from.channels, gap);
  to.each([&](Index i, Index h, Index c) { return number(from, i, h, c); });
  return to;
}

struct GradientSheets {
  GradientSheets(DType type, const Inputs& in, Index gap)
      : dq(type, in.queries(), in.problem.query_heads, in.problem.channels, gap),
        dk(type, in.keys(), in.problem.kv_heads, in.problem.channels, gap),
        dv(type, in.keys(), in.problem.kv_heads, in.problem.value_channels, gap) {
    dq.fill(0.5);  // gradients are added to what is there
    dk.fill(-0.25);
    dv.fill(2);
  }
  Gradients view() const { return {dq, dk, dv}; }
  Sheet dq, dk, dv;
};

// Errors against the largest gradient, and against the rounding of dP = dO V^T, which dP - delta may cancel: u times
// its largest sum of magnitudes, times what it is multiplied by.
void expect_gradient(const Sheet& got, const Sheet& truth, double dp_rounding, const char* name) {
  const double bound = gradient_bound * largest(truth) + dp_rounding;
  const Rows& rows = got.rows();
  for (Index i = 0; i < rows.tokens; ++i)
    for (Index h = 0; h < rows.heads; ++h)
      for (Index c = 0; c < rows.channels; ++c)
        ASSERT_NEAR(got.at(i, h, c), truth.at(i, h, c), bound)
            << name << " row " << i << " head " << h << " channel " << c;
}

void expect_backward(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Truth& truth) {
  const Sheet lse = rounded(truth.forward.lse, 3), delta = rounded(truth.delta, 1);
  GradientSheets got(DType::f32, in, 4), exact(DType::f64, in, 0);
  kernel.backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
  truth.kernel->backward(tiles, {in.q, in.dout, truth.forward.lse, truth.delta}, {in.k, in.v}, exact.view());
  const double dp = static_cast<double>(in.problem.value_channels) * largest(in.dout) * largest(in.v);
  const double rounding = 0x1p-24 * dp * in.problem.softmax_scale;
  expect_gradient(got.dq, exact.dq, rounding * largest(in.k), "dq");
  expect_gradient(got.dk, exact.dk, rounding * largest(in.q), "dk");
  expect_gradient(got.dv, exact.dv, 0, "dv");
}

struct ObservationSheets {
  ObservationSheets(DType type, const Inputs& in, Index tops, Index block, Index gap)
      : entropy(type, in.queries(), in.problem.query_heads, 1, gap),
        max_probability(entropy),
        sink_mass(entropy),
        mean_distance(entropy),
        received(type, in.keys(), in.problem.query_heads, 1, gap),
        top_score(type, in.queries(), in.problem.query_heads, tops, gap),
        top_index(static_cast<std::size_t>(in.queries() * in.problem.query_heads * tops), -1),
        block_tokens(block),
        query_blocks(ceil_div(in.queries(), block)),
        key_blocks(ceil_div(in.keys(), block)),
        block_mass(static_cast<std::size_t>(in.problem.query_heads * query_blocks * key_blocks)) {
    for (Sheet* sheet : {&entropy, &max_probability, &sink_mass, &mean_distance, &received}) sheet->fill(0);
    top_score.fill(minus_infinity);
  }
  Observation view() {
    return {.entropy = entropy,
            .max_probability = max_probability,
            .sink_mass = sink_mass,
            .mean_distance = mean_distance,
            .received = received,
            .top_score = top_score,
            .top_index = top_index,
            .block_mass = block_mass,
            .sink_tokens = 6,
            .block_tokens = block_tokens,
            .key_blocks = key_blocks,
            .query_blocks = query_blocks};
  }
  bool same_bits(const ObservationSheets& o) const {
    return entropy.same_bits(o.entropy) && max_probability.same_bits(o.max_probability) &&
           sink_mass.same_bits(o.sink_mass) && mean_distance.same_bits(o.mean_distance) &&
           received.same_bits(o.received) && top_score.same_bits(o.top_score) && top_index == o.top_index &&
           block_mass == o.block_mass;
  }
  Sheet entropy, max_probability, sink_mass, mean_distance, received, top_score;
  std::vector<Index> top_index;
  Index block_tokens, query_blocks, key_blocks;
  std::vector<double> block_mass;
};

void expect_near(const Sheet& got, const Sheet& truth, double bound, const char* name) {
  const Rows& rows = got.rows();
  for (Index i = 0; i < rows.tokens; ++i)
    for (Index h = 0; h < rows.heads; ++h)
      for (Index c = 0; c < rows.channels; ++c) {
        const double want = truth.at(i, h, c);
        if (std::isinf(want)) {
          ASSERT_EQ(got.at(i, h, c), want) << name << " row " << i << " head " << h;
        } else {
          ASSERT_NEAR(got.at(i, h, c), want, bound * (1 + std::abs(want))) << name << " row " << i << " head " << h;
        }
      }
}

void expect_observe(Kernel& kernel, std::span<const Tile> tiles, const Inputs& in, const Truth& truth, Index block) {
  constexpr Index tops = 5;
  const Sheet lse = rounded(truth.forward.lse, 3);
  ObservationSheets got(DType::f32, in, tops, block, 2), exact(DType::f64, in, tops, block, 0);
  kernel.observe(tiles, in.q, in.k, lse, got.view());
  truth.kernel->observe(tiles, in.q, in.k, truth.forward.lse, exact.view());
  const double bound = 5e-6;  // scores err by 8 u, times an entropy's weight |lse - s| of up to 10
  expect_near(got.entropy, exact.entropy, bound, "entropy");
  expect_near(got.max_probability, exact.max_probability, bound, "max probability");
  expect_near(got.sink_mass, exact.sink_mass, bound, "sink mass");
  expect_near(got.mean_distance, exact.mean_distance, bound, "mean distance");
  expect_near(got.received, exact.received, bound, "received");
  expect_near(got.top_score, exact.top_score, bound, "top score");
  for (std::size_t n = 0; n < got.block_mass.size(); ++n)
    ASSERT_NEAR(got.block_mass[n], exact.block_mass[n], bound * (1 + exact.block_mass[n])) << "map cell " << n;
  for (std::size_t n = 0; n < got.top_index.size(); ++n) {
    if (got.top_index[n] == exact.top_index[n]) continue;
    // scores that are closer than their rounding may change places
    const auto cell = static_cast<Index>(n);
    const Index heads = in.problem.query_heads, i = cell / tops / heads, h = cell / tops % heads, c = cell % tops;
    const double s = exact.top_score.at(i, h, c);
    const double above = c > 0 ? exact.top_score.at(i, h, c - 1) : s + 1;
    const double below = c + 1 < tops ? exact.top_score.at(i, h, c + 1) : s;
    EXPECT_LT(std::min(above - s, s - below), 4 * bound * (1 + std::abs(s))) << "top index row " << i << " head " << h;
  }
}

Problem problem_of(Index channels, Index value_channels, DType type) {
  return {.query_heads = 3,
          .kv_heads = 2,
          .channels = channels,
          .value_channels = value_channels,
          .group = 2,
          .phase = 1,
          .type = type,
          .softmax_scale = 1 / std::sqrt(static_cast<double>(channels)),
          .query_shift = 4};
}

// In every layout, all three passes of every tier.
void expect_everything(Index channels, Index value_channels, std::span<const DType> types) {
  std::size_t n = 0;
  for (const Layout& layout : layouts()) {
    const DType type = types[n++ % types.size()];
    const Inputs in(problem_of(channels, value_channels, type), layout.queries, layout.keys, static_cast<unsigned>(n));
    const Truth truth(layout.tiles, in);
    for (const std::string& tier : runnable_tiers()) {
      SCOPED_TRACE(
          sentence(layout.name, ", ", name_of(type), ", ", tier, ", channels ", channels, " and ", value_channels));
      const auto kernel = make_tiled_kernel(in.problem, {.threads = 1}, tier);
      expect_forward(*kernel, layout.tiles, in, truth);
      expect_backward(*kernel, layout.tiles, in, truth);
      expect_observe(*kernel, layout.tiles, in, truth, n % 2 == 0 ? 16 : 1);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

class Channels : public testing::TestWithParam<std::pair<Index, Index>> {};

TEST_P(Channels, EveryTierAgreesWithTheReferenceInEveryLayout) {
  static constexpr DType types[] = {DType::f32, DType::bf16, DType::f16, DType::f32};
  expect_everything(GetParam().first, GetParam().second, types);
}

INSTANTIATE_TEST_SUITE_P(Tiled, Channels,
                         testing::Values(std::pair<Index, Index>{1, 1}, std::pair<Index, Index>{3, 5},
                                         std::pair<Index, Index>{16, 16}, std::pair<Index, Index>{40, 40},
                                         std::pair<Index, Index>{64, 64}, std::pair<Index, Index>{80, 80},
                                         std::pair<Index, Index>{96, 33}, std::pair<Index, Index>{128, 128},
                                         std::pair<Index, Index>{192, 128}, std::pair<Index, Index>{17, 192},
                                         std::pair<Index, Index>{256, 256}),
                         [](const auto& pair) {
                           return "c" + std::to_string(pair.param.first) + "v" + std::to_string(pair.param.second);
                         });

TEST(Tiled, EveryTypeAgreesWithTheReferenceInEveryLayout) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) expect_everything(24, 20, std::span(&type, 1));
}

TEST(Tiled, TheLargestHeadsAgreeWithTheReference) {
  const Layout layout = layouts()[0];
  const Inputs in(problem_of(512, 512, DType::f32), layout.queries, layout.keys, 11);
  const Truth truth(layout.tiles, in);
  for (const std::string& tier : runnable_tiers()) {
    const auto kernel = make_tiled_kernel(in.problem, {.threads = 1}, tier);
    expect_forward(*kernel, layout.tiles, in, truth);
    expect_backward(*kernel, layout.tiles, in, truth);
    expect_observe(*kernel, layout.tiles, in, truth, 7);
  }
}

TEST(Tiled, LongRowsStayAsAccurateAsShortOnes) {
  const std::vector<Tile> tiles{tile({0, 30}, {0, 6000})};
  const Inputs in({.channels = 16, .value_channels = 8, .softmax_scale = 0.25}, 30, 6000, 12);
  const Truth truth(tiles, in);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    expect_forward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth);
  }
}

TEST(Tiled, StateCarriesAcrossCalls) {
  const Inputs in(problem_of(32, 24, DType::f32), 100, 300, 13);
  const std::vector<Tile> all{tile({0, 100}, {0, 300}, {-far, 200})};
  const Truth truth(all, in);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    const auto kernel = make_tiled_kernel(in.problem, {}, tier);
    ForwardResult carried{{DType::f32, 100, 3, 24}, {DType::f32, 100, 3, 1}};
    for (const Range keys : {Range{150, 300}, Range{0, 70}, Range{70, 150}}) {
      const std::vector<Tile> part{tile({0, 100}, keys, {-far, 200 - keys.begin})};
      kernel->forward(part, in.q, {in.k, in.v}, carried.partial.view());
    }
    finish(carried.partial.view(), carried.lse);
    for (Index i = 0; i < 100; ++i)
      for (Index h = 0; h < 3; ++h) {
        EXPECT_NEAR(carried.lse.at(i, h), truth.forward.lse.at(i, h), 1e-5);
        for (Index c = 0; c < 24; ++c)
          ASSERT_NEAR(carried.partial.out.at(i, h, c), truth.forward.partial.out.at(i, h, c),
                      forward_bound * truth.magnitude.value->partial.out.at(i, h, c) + 1e-7);
      }
  }
}

TEST(Tiled, PartialsOfDisjointKeysMerge) {
  const Inputs in(problem_of(32, 24, DType::f32), 60, 200, 14, 3);
  const std::vector<Tile> all{tile({0, 60}, {0, 200})};
  const Truth truth(all, in);
  for (const std::string& tier : runnable_tiers()) {
    const auto kernel = make_tiled_kernel(in.problem, {}, tier);
    const std::vector<Tile> first{tile({0, 60}, {0, 90})}, second{tile({0, 60}, {90, 200})};
    ForwardResult a = forward_by(*kernel, first, in, in.v), b = forward_by(*kernel, second, in, in.v);
    merge(a.partial.view(), b.partial.view());
    finish(b.partial.view(), b.lse);
    // scores reach 30 here, so that their rounding alone is 30 u sqrt(32)
    for (Index i = 0; i < 60; ++i)
      for (Index c = 0; c < 24; ++c)
        ASSERT_NEAR(b.partial.out.at(i, 1, c), truth.forward.partial.out.at(i, 1, c), 1e-5) << tier;
  }
}

TEST(Tiled, RowsOutsideTheTilesAreNotWritten) {
  const Layout layout = layouts().back();
  const Inputs in(problem_of(20, 12, DType::f32), layout.queries, layout.keys, 15);
  const Truth truth(layout.tiles, in);
  const std::vector<bool> q_hit = touched(layout.tiles, layout.queries),
                          k_hit = touched(layout.tiles, layout.keys, true);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    const auto kernel = make_tiled_kernel(in.problem, {}, tier);
    PartialSheets partial(DType::f32, layout.queries, 3, 12, 2);
    GradientSheets gradients(DType::f32, in, 2);
    const auto poison = [](Sheet& sheet, const std::vector<bool>& hit) {
      sheet.each([&](Index i, Index h, Index c) {
        return hit[static_cast<std::size_t>(i)] ? sheet.at(i, h, c) : std::numeric_limits<double>::quiet_NaN();
      });
    };
    for (Sheet* sheet : {&partial.out, &partial.top, &partial.sum, &gradients.dq}) poison(*sheet, q_hit);
    for (Sheet* sheet : {&gradients.dk, &gradients.dv}) poison(*sheet, k_hit);
    const PartialSheets before = partial;
    const GradientSheets gradients_before = gradients;
    const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
    kernel->forward(layout.tiles, in.q, {in.k, in.v}, partial.view());
    kernel->backward(layout.tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, gradients.view());
    const auto untouched = [](const Sheet& now, const Sheet& then, const std::vector<bool>& hit) {
      for (Index i = 0; i < now.rows().tokens; ++i) {
        const bool same = std::memcmp(now.rows().at<float>(i), then.rows().at<float>(i),
                                      static_cast<std::size_t>(now.rows().row_bytes())) == 0;
        EXPECT_EQ(same, !hit[static_cast<std::size_t>(i)]) << "row " << i;
        EXPECT_EQ(std::isnan(now.at(i, 0, 0)), !hit[static_cast<std::size_t>(i)]) << "row " << i;
      }
    };
    untouched(partial.out, before.out, q_hit);
    untouched(partial.top, before.top, q_hit);
    untouched(partial.sum, before.sum, q_hit);
    untouched(gradients.dq, gradients_before.dq, q_hit);
    untouched(gradients.dk, gradients_before.dk, k_hit);
    untouched(gradients.dv, gradients_before.dv, k_hit);
  }
}

// Scores that jump by thousands, up and down, between blocks of keys: the reference has to move, and nothing overflows.
TEST(Tiled, HugeScoresNeitherOverflowNorVanish) {
  for (const double jump : {60.0, 1000.0, 1e4, -1e4, 1e6}) {
    Inputs in({.channels = 4, .value_channels = 6, .softmax_scale = 1}, 40, 700, 16);
    in.q.each([&](Index, Index, Index c) { return c == 0 ? 1.0 : 0.0; });
    in.k.each([&](Index j, Index, Index c) {
      return c == 0 ? static_cast<double>(j / 100 % 4) * jump + 0.25 * static_cast<double>(j % 3) : 0.0;
    });
    const std::vector<Tile> tiles{tile({0, 40}, {0, 700}, {-far, 660})};
    const Truth truth(tiles, in);
    for (const std::string& tier : runnable_tiers()) {
      SCOPED_TRACE(sentence("jump ", jump, ", ", tier));
      // t = c s - base is rounded once, but base and c s are rounded numbers of size log2(e) |s| themselves
      expect_forward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth, 1e-6 + 3 * 0x1p-24 * std::abs(jump));
    }
  }
}

TEST(Tiled, ARisingSequenceOfScoresMovesTheReferenceManyTimes) {
  Inputs in({.channels = 2, .value_channels = 3, .softmax_scale = 1}, 30, 2000, 17);
  in.q.each([](Index, Index, Index c) { return c == 0 ? 1.0 : 0.0; });
  in.k.each([](Index j, Index, Index c) { return c == 0 ? static_cast<double>(j) * 0.5 : 0.0; });
  const std::vector<Tile> tiles{tile({0, 30}, {0, 2000})};
  const Truth truth(tiles, in);
  for (const std::string& tier : runnable_tiers())
    expect_forward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth, 1e-6 + 1500 * 0x1p-24);
}

TEST(Tiled, AScoreOfMinusInfinityIsAKeyThatDoesNotCount) {
  Inputs in({.channels = 3, .value_channels = 5, .softmax_scale = 0.5}, 50, 260, 18);
  const double infinite = std::numeric_limits<double>::infinity();
  in.q.each([](Index, Index, Index) { return 1.0; });
  for (Index j = 0; j < 260; ++j)
    if (j < 150 || j % 3 == 0) in.k.set(j, 0, 1, -infinite);
  // the first 20 queries see nothing but such keys
  const std::vector<Tile> tiles{tile({0, 20}, {0, 140}), tile({20, 50}, {0, 260})};
  const Truth truth(tiles, in);
  ASSERT_EQ(truth.forward.lse.at(0, 0), minus_infinity);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    const auto kernel = make_tiled_kernel(in.problem, {}, tier);
    expect_forward(*kernel, tiles, in, truth);
    const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
    ObservationSheets seen(DType::f32, in, 4, 32, 0);
    kernel->observe(tiles, in.q, in.k, lse, seen.view());
    EXPECT_EQ(seen.entropy.at(0, 0), 0);
    EXPECT_EQ(seen.top_index[0], -1);
    EXPECT_FALSE(std::isnan(seen.entropy.at(30, 0)));
    EXPECT_GE(seen.top_index[30 * 4], 150);
  }
}

TEST(Tiled, RowsWithoutMassHaveNoGradient) {
  Inputs in(problem_of(8, 8, DType::f32), 40, 40, 19);
  const std::vector<Tile> tiles{tile({0, 40}, {0, 40})};
  Truth truth(tiles, in);
  Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  for (Index h = 0; h < 3; ++h) {
    lse.set(7, h, 0, minus_infinity);
    truth.forward.lse.set(7, h, 0, minus_infinity);
    delta.set(7, h, 0, std::numeric_limits<double>::quiet_NaN());
  }
  for (const std::string& tier : runnable_tiers()) {
    GradientSheets got(DType::f32, in, 0);
    make_tiled_kernel(in.problem, {}, tier)->backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
    for (Index c = 0; c < 8; ++c) EXPECT_EQ(got.dq.at(7, 1, c), 0.5);
    EXPECT_FALSE(std::isnan(largest(got.dk) + largest(got.dv)));
    expect_backward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth);
  }
}

TEST(Tiled, NotANumberIsNotHidden) {
  Inputs in({.channels = 5, .value_channels = 2, .softmax_scale = 0.5}, 30, 300, 20);
  in.k.set(222, 0, 3, std::numeric_limits<double>::quiet_NaN());
  const std::vector<Tile> tiles{tile({0, 30}, {0, 300}, {-far, 205})};
  for (const std::string& tier : runnable_tiers()) {
    ForwardResult r = forward_by(*make_tiled_kernel(in.problem, {}, tier), tiles, in, in.v);
    for (Index i = 0; i < 30; ++i)
      EXPECT_EQ(std::isnan(r.partial.out.at(i, 0, 0)), i + 205 >= 222) << tier << " row " << i;
  }
}

TEST(Tiled, TheBitsDoNotDependOnThreads) {
  const Layout layout = layouts()[7];
  const Inputs in(problem_of(40, 24, DType::f32), layout.queries, layout.keys, 21);
  const Truth truth(layout.tiles, in);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    const auto run = [&](int threads) {
      const auto kernel = make_tiled_kernel(in.problem, {.threads = threads}, tier);
      auto result = std::make_tuple(PartialSheets(DType::f32, in.queries(), 3, 24), GradientSheets(DType::f32, in, 0),
                                    ObservationSheets(DType::f32, in, 5, 16, 0));
      kernel->forward(layout.tiles, in.q, {in.k, in.v}, std::get<0>(result).view());
      kernel->backward(layout.tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, std::get<1>(result).view());
      kernel->observe(layout.tiles, in.q, in.k, lse, std::get<2>(result).view());
      return result;
    };
    const auto one = run(1);
    for (const int threads : {1, 2, 3}) {
      const auto other = run(threads);
      EXPECT_TRUE(std::get<0>(one).same_bits(std::get<0>(other)));
      EXPECT_TRUE(std::get<1>(one).dq.same_bits(std::get<1>(other).dq));
      EXPECT_TRUE(std::get<1>(one).dk.same_bits(std::get<1>(other).dk));
      EXPECT_TRUE(std::get<1>(one).dv.same_bits(std::get<1>(other).dv));
      EXPECT_TRUE(std::get<2>(one).same_bits(std::get<2>(other)));
    }
  }
}

TEST(Tiled, KeysOfEqualScoreRankByPosition) {
  Inputs in({.channels = 7, .value_channels = 1, .softmax_scale = 1}, 33, 200, 22);
  in.k.fill(0.5);
  const std::vector<Tile> tiles{tile({0, 33}, {100, 200}), tile({0, 33}, {0, 100})};  // later keys first
  const Truth truth(tiles, in);
  const Sheet lse = rounded(truth.forward.lse);
  for (const std::string& tier : runnable_tiers()) {
    ObservationSheets seen(DType::f32, in, 4, 64, 0);
    make_tiled_kernel(in.problem, {}, tier)->observe(tiles, in.q, in.k, lse, seen.view());
    for (Index i = 0; i < 33; ++i)
      for (Index n = 0; n < 4; ++n)
        EXPECT_EQ(seen.top_index[static_cast<std::size_t>(i * 4 + n)], n) << tier << " row " << i;
  }
}

TEST(Tiled, WhatKeysReceiveSumsToTheQueries) {
  const Inputs in(problem_of(16, 4, DType::f32), 500, 500, 23);
  const std::vector<Tile> tiles{tile({0, 500}, {0, 500}, {-far, 0})};
  for (const std::string& tier : runnable_tiers()) {
    const auto kernel = make_tiled_kernel(in.problem, {.threads = 2}, tier);
    ForwardResult forward = forward_by(*kernel, tiles, in, in.v);
    finish(forward.partial.view(), forward.lse);
    ObservationSheets seen(DType::f32, in, 1, 100, 0);
    kernel->observe(tiles, in.q, in.k, forward.lse, seen.view());
    double total = 0, mass = 0;
    for (Index j = 0; j < 500; ++j)
      for (Index h = 0; h < 3; ++h) total += seen.received.at(j, h);
    for (const double m : seen.block_mass) mass += m;
    EXPECT_NEAR(total, 1500, 1500 * 1e-6) << tier;
    EXPECT_NEAR(mass, 1500, 1500 * 1e-6) << tier;
  }
}

TEST(Tiled, StridedRowsKeepTheirGlobalPositions) {
  const Inputs in(problem_of(12, 4, DType::f32), 70, 80, 24);
  Tile strided = tile({0, 70}, {0, 80}, {-30, 12});
  strided.q_at = 3, strided.k_at = 1, strided.stride = 5;
  const std::vector<Tile> tiles{strided};
  const Truth truth(tiles, in);
  const Sheet lse = rounded(truth.forward.lse);
  for (const std::string& tier : runnable_tiers())
    for (const Index block : {1, 7, 64, 1000}) {
      ObservationSheets got(DType::f32, in, 2, block, 0), exact(DType::f64, in, 2, block, 0);
      for (ObservationSheets* sheets : {&got, &exact}) {
        sheets->query_blocks = ceil_div(Index{70 * 5 + 3}, block);
        sheets->key_blocks = ceil_div(Index{80 * 5 + 3}, block);
        sheets->block_mass.assign(static_cast<std::size_t>(3 * sheets->query_blocks * sheets->key_blocks), 0);
      }
      make_tiled_kernel(in.problem, {.threads = 2}, tier)->observe(tiles, in.q, in.k, lse, got.view());
      truth.kernel->observe(tiles, in.q, in.k, truth.forward.lse, exact.view());
      for (std::size_t n = 0; n < got.block_mass.size(); ++n)
        ASSERT_NEAR(got.block_mass[n], exact.block_mass[n], 1e-5) << tier << " block " << block << " cell " << n;
      expect_near(got.mean_distance, exact.mean_distance, 5e-6, "mean distance");
      EXPECT_EQ(got.top_index, exact.top_index);
    }
}

TEST(Tiled, WrongShapesAreRefusedWithTheRule) {
  const Inputs in(problem_of(8, 8, DType::f32), 10, 12, 25);
  const auto kernel = make_tiled_kernel(in.problem, {}, "portable");
  PartialSheets partial(DType::f32, 10, 3, 8), wrong(DType::f32, 10, 3, 7), doubles(DType::f64, 10, 3, 8);
  const std::vector<Tile> fits{tile({0, 10}, {0, 12})}, outside{tile({0, 11}, {0, 12})};
  EXPECT_THROW(kernel->forward(outside, in.q, {in.k, in.v}, partial.view()), Error);
  EXPECT_THROW(kernel->forward(fits, in.q, {in.k, in.v}, wrong.view()), Error);
  EXPECT_THROW(kernel->forward(fits, in.q, {in.k, in.v}, doubles.view()), Error);
  EXPECT_THROW(kernel->forward(fits, in.dout.rows().slice(0, 5), {in.k, in.v}, partial.view()), Error);
  EXPECT_NO_THROW(kernel->forward({}, in.q, {in.k, in.v}, partial.view()));
  EXPECT_THROW(make_tiled_kernel(problem_of(8, 8, DType::f64), {}, "portable"), Error);
  EXPECT_THROW(make_tiled_kernel(problem_of(513, 8, DType::f32), {}, "portable"), Error);
  EXPECT_THROW(make_tiled_kernel(in.problem, {.threads = 0}, "portable"), Error);
  EXPECT_THROW(make_tiled_kernel(in.problem, {}, "abacus"), Error);
}

}  // namespace
}  // namespace annulus::test

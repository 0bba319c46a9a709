#include <gtest/gtest.h>

#include "kernel/agreement.hpp"
#include "kernel/cpu/tiled.hpp"
#include "kernel/tile_twin.hpp"

// Every tier that runs here against the naive float64 kernel on the same (rounded) inputs.

namespace annulus::test {
namespace {

// In every layout, all three passes of every tier. Wide heads take every other layout: the float64 reference is slow,
// and what differs between layouts does not depend on channels.
void expect_everything(Index channels, Index value_channels, std::span<const DType> types) {
  std::size_t n = 0;
  for (const Layout& layout : layouts()) {
    const DType type = types[n++ % types.size()];
    if (channels * value_channels >= 128 * 128 && (static_cast<Index>(n) + channels / 64) % 2 == 0) continue;
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
                         [](const auto& pair) { return sentence("c", pair.param.first, "v", pair.param.second); });

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

// 8 u: the standard deviations of agreement.hpp (3 u of the scores, 2 u of the exponential, 3 u inside chunks, 2 u of their
// sums) over the whole result, where out is as small as its terms' random signs make it.
TEST(Tiled, LongRowsStayAsAccurateAsShortOnes) {
  for (const auto& [queries, keys] : {std::pair<Index, Index>{60, 6000}, {30, 6000}, {50, 65536}, {9, 65536}}) {
    const std::vector<Tile> tiles{tile({0, queries}, {0, keys})};
    const Inputs in({.channels = 64, .value_channels = 24, .softmax_scale = 0.125}, queries, keys, 12);
    const Truth truth(tiles, in);
    for (const std::string& tier : runnable_tiers()) {
      SCOPED_TRACE(sentence(tier, ", ", keys, " keys"));
      const auto kernel = make_tiled_kernel(in.problem, {}, tier);
      const double bound = 8 * 0x1p-24 * coarseness(*kernel);
      expect_forward(*kernel, tiles, in, truth);
      ForwardResult r = forward_by(*kernel, tiles, in, in.v);
      finish(r.partial.view(), r.lse);
      double errors = 0, squares = 0;
      for (Index i = 0; i < queries; ++i) {
        for (Index c = 0; c < 24; ++c) {
          const double exact = truth.forward.partial.out.at(i, 0, c);
          errors += std::pow(r.partial.out.at(i, 0, c) - exact, 2);
          squares += exact * exact;
        }
        EXPECT_NEAR(r.lse.at(i, 0), truth.forward.lse.at(i, 0), bound * truth.forward.lse.at(i, 0));
      }
      EXPECT_LE(std::sqrt(errors / squares), bound);
    }
  }
}

TEST(Tiled, TheErrorGrowsWithTheScoresAndWithNothingElse) {
  for (const auto& [size, channels] : {std::pair<double, Index>{10, 64}, {10, 512}, {100, 128}}) {
    Inputs in(problem_of(channels, 16, DType::f32), 200, 200, 26);
    in.q.each([&](Index i, Index h, Index c) { return size * in.q.at(i, h, c); });
    const std::vector<Tile> tiles{tile({0, 200}, {0, 200}, {-far, 0})};
    const Truth truth(tiles, in);
    for (const std::string& tier : runnable_tiers()) {
      SCOPED_TRACE(sentence("scores of size ", size, ", channels ", channels, ", ", tier));
      expect_forward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth, size * forward_bound);
    }
  }
}

// Dense attention of bf16 rows with everything exact but P, rounded to bf16 as its product with v needs it.
Sheet dense_with_rounded_p(const Inputs& in, const Truth& truth) {
  Sheet out(DType::f64, in.queries(), 3, in.problem.value_channels);
  for (Index i = 0; i < in.queries(); ++i)
    for (Index h = 0; h < 3; ++h) {
      const Index g = in.problem.kv_head(h);
      std::vector<double> sums(static_cast<std::size_t>(in.problem.value_channels));
      for (Index j = 0; j < in.keys(); ++j) {
        double s = 0;
        for (Index c = 0; c < in.problem.channels; ++c) s += in.q.at(i, h, c) * in.k.at(j, g, c);
        const double p = std::exp(s * in.problem.softmax_scale - truth.forward.partial.top.at(i, h));
        const double rounded = from_bf16(to_bf16(static_cast<float>(p)));
        for (Index c = 0; c < in.problem.value_channels; ++c)
          sums[static_cast<std::size_t>(c)] += rounded * in.v.at(j, g, c) / truth.forward.partial.sum.at(i, h);
      }
      for (Index c = 0; c < in.problem.value_channels; ++c) out.set(i, h, c, sums[static_cast<std::size_t>(c)]);
    }
  return out;
}

TEST(Tiled, KernelsThatRoundPErrAtMostTwiceAsMuchAsADenseProductThatDoes) {
  int judged = 0;
  for (const std::string& tier : runnable_tiers())
    for (const Index keys : {3, 150, 700}) {
      if (!tier.ends_with("-bf16")) continue;
      const Inputs in(problem_of(64, 40, DType::bf16), 96, keys, 27);
      const std::vector<Tile> tiles{tile({0, 96}, {0, keys})};
      const Truth truth(tiles, in);
      const Sheet dense = dense_with_rounded_p(in, truth);
      ForwardResult r = forward_by(*make_tiled_kernel(in.problem, {}, tier), tiles, in, in.v);
      finish(r.partial.view(), r.lse);
      double ours = 0, theirs = 0;
      for (Index i = 0; i < in.queries(); ++i)
        for (Index h = 0; h < 3; ++h)
          for (Index c = 0; c < 40; ++c) {
            const double exact = truth.forward.partial.out.at(i, h, c);
            ours += std::pow(r.partial.out.at(i, h, c) - exact, 2);
            theirs += std::pow(dense.at(i, h, c) - exact, 2);
          }
      EXPECT_LE(ours, 4 * theirs) << tier << ", " << keys << " keys";
      ++judged;
    }
  if (judged == 0) GTEST_SKIP() << "no kernel that rounds P runs here";
}

// What AMX tiles compute, by their software twin: tails of channels, of values, of keys and of pairs; numbers of one
// and of two terms.
TEST(Tiled, TileProductsAgreeWithTheReferenceInEveryLayout) {
  Share share(3);
  for (const auto& [tier, type] : {std::pair{"amx-bf16", DType::bf16},
                                   {"amx-split", DType::f32},
                                   {"amx-split", DType::f16},
                                   {"amx-fast", DType::f32},
                                   {"amx-fast", DType::f16}})
    for (const auto& [channels, values] : {std::pair<Index, Index>{1, 1}, {3, 17}, {40, 40}, {64, 64}, {130, 5}}) {
      share.next_round();
      for (const Layout& layout : layouts()) {
        if (!share.takes()) continue;
        SCOPED_TRACE(sentence(layout.name, ", ", tier, ", channels ", channels, " and ", values));
        const Inputs in(problem_of(channels, values, type), layout.queries, layout.keys, 29);
        const Truth truth(layout.tiles, in);
        const std::string name = sentence("twin-", tier);
        const auto kernel = cpu::make_kernel_of_tier(in.problem, {}, name, tile_twin_tier(tier));
        expect_forward(*kernel, layout.tiles, in, truth);
        expect_backward(*kernel, layout.tiles, in, truth);
        expect_observe(*kernel, layout.tiles, in, truth, channels == 3 ? 1 : 16);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
}

double squares(const Sheet& a, const Sheet& b) {
  double sum = 0;
  for (Index i = 0; i < a.rows().tokens; ++i)
    for (Index h = 0; h < a.rows().heads; ++h)
      for (Index c = 0; c < a.rows().channels; ++c) sum += std::pow(a.at(i, h, c) - b.at(i, h, c), 2);
  return sum;
}

// However little of the keys is packed at a time, chunk by chunk or head by head, on one thread or on several.
TEST(Tiled, PackedInRoundsOrAtOnceTheResultIsTheSame) {
  const std::vector<Tile> tiles{tile({0, 150}, {0, 400}, {-far, 0}), tile({0, 300}, {400, 1'700}, {-90, far}),
                                tile({150, 300}, {40, 400})};
  Share share(3);
  for (const auto& [tier, type] :
       {std::pair{"amx-bf16", DType::bf16}, {"amx-split", DType::f32}, {"amx-fast", DType::f16}}) {
    const Inputs in(problem_of(8, 24, type), 300, 1'700, 34);
    const Truth truth(tiles, in);
    const std::string name = sentence("twin-", tier);
    share.next_round();
    for (const Index packed_bytes : {1, 200'000, 100'000'000}) {
      if (!share.takes()) continue;
      SCOPED_TRACE(sentence(name, ", ", packed_bytes, " bytes packed"));
      std::vector<Sheet> outs;
      for (const int threads : {1, 3}) {
        const auto kernel =
            cpu::make_kernel_of_tier(in.problem, {.threads = threads}, name, tile_twin_tier(tier), packed_bytes);
        expect_forward(*kernel, tiles, in, truth);
        outs.push_back(forward_by(*kernel, tiles, in, in.v).partial.out);
      }
      EXPECT_EQ(squares(outs[0], outs[1]), 0);
    }
  }
}

// Dense gradients with everything exact but P and dS, rounded to bf16 as their products need them.
TEST(Tiled, GradientsInTilesErrAtMostTwiceAsMuchAsDenseOnes) {
  for (const auto& [queries, keys] : {std::pair<Index, Index>{40, 3}, {200, 150}, {300, 700}}) {
    const Inputs in(problem_of(64, 40, DType::bf16), queries, keys, 31);
    const std::vector<Tile> tiles{tile({0, queries}, {0, keys})};
    const Truth truth(tiles, in);
    const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
    const auto same = [](double x) { return x; };
    const auto to_nearest = [](double x) { return static_cast<double>(from_bf16(to_bf16(static_cast<float>(x)))); };
    const GradientSheets exact = dense_gradients(tiles, in, truth, same, same),
                         dense = dense_gradients(tiles, in, truth, to_nearest, same);
    GradientSheets got(DType::f32, in, 0);
    for (Sheet* sheet : {&got.dq, &got.dk, &got.dv}) sheet->fill(0);
    cpu::make_kernel_of_tier(in.problem, {}, "twin-amx-bf16", tile_twin_tier("amx-bf16"))
        ->backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
    EXPECT_LE(squares(got.dq, exact.dq), 4 * squares(dense.dq, exact.dq)) << keys << " keys";
    EXPECT_LE(squares(got.dk, exact.dk), 4 * squares(dense.dk, exact.dk)) << keys << " keys";
    EXPECT_LE(squares(got.dv, exact.dv), 4 * squares(dense.dv, exact.dv)) << keys << " keys";
  }
}

// One key in sight: P is 1 to a few 2^-24, which bf16 holds, so out is that key's value.
TEST(Tiled, TileProductsAreExactWhereNothingIsRounded) {
  const Inputs in(problem_of(64, 48, DType::bf16), 100, 100, 30);
  const std::vector<Tile> tiles{tile({0, 100}, {0, 100}, {0, 0})};
  const auto kernel = cpu::make_kernel_of_tier(in.problem, {}, "twin-amx-bf16", tile_twin_tier("amx-bf16"));
  ForwardResult r = forward_by(*kernel, tiles, in, in.v);
  finish(r.partial.view(), r.lse);
  for (Index i = 0; i < 100; ++i)
    for (Index c = 0; c < 48; ++c) {
      const double value = in.v.at(i, in.problem.kv_head(1), c);
      EXPECT_NEAR(r.partial.out.at(i, 1, c), value, forward_bound * std::abs(value));
    }
}

TEST(Tiled, GradientsOfLongSumsStayAsAccurateAsShortOnes) {
  for (const auto& [queries, keys] : {std::pair<Index, Index>{5000, 10}, {10, 5000}})
    for (const DType type : {DType::f32, DType::f16}) {
      const std::vector<Tile> tiles{tile({0, queries}, {0, keys})};
      const Inputs in({.channels = 64, .value_channels = 24, .type = type, .softmax_scale = 0.125}, queries, keys, 32);
      const Truth truth(tiles, in);
      for (const std::string& tier : runnable_tiers()) {
        SCOPED_TRACE(sentence(tier, ", ", name_of(type), ", ", queries, " queries and ", keys, " keys"));
        expect_backward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth);
      }
    }
}

}  // namespace
}  // namespace annulus::test

#include <gtest/gtest.h>

#include <tuple>

#include "kernel/agreement.hpp"
#include "kernel/cpu/tiled.hpp"
#include "kernel/tile_twin.hpp"

// Scores that are huge, infinite or no numbers; equal scores; any number of threads; wrong shapes.

namespace annulus::test {
namespace {

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

// Sums of bf16 terms hold neither numbers near the largest f32 nor the smallest values: what is computed must not show it.
TEST(Tiled, NumbersThatDoNotSplitAreComputedAllTheSame) {
  const double most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  const std::vector<Tile> tiles{tile({0, 70}, {0, 560}, {-far, 500})};
  struct Factors {
    double q, k, v;
  };
  for (const Factors& change : {Factors{most / 8, 1 / most, 1},
                                {1e-30, 1e30, 1},
                                {1, 1, 1e30},
                                {1, 1, 1e-36},
                                {1, 1, 1000 * least},
                                {1, 1e-40, 1e20}}) {
    Inputs in({.channels = 40, .value_channels = 20, .softmax_scale = 0.15}, 70, 560, 31);
    in.q.each([&](Index i, Index h, Index c) { return in.q.at(i, h, c) * change.q; });
    in.k.each([&](Index j, Index h, Index c) { return in.k.at(j, h, c) * change.k; });
    in.v.each([&](Index j, Index h, Index c) { return std::clamp(in.v.at(j, h, c), -6.0, 6.0) * change.v; });
    const Truth truth(tiles, in);
    const auto check = [&](Kernel& kernel) {
      SCOPED_TRACE(sentence(kernel.name(), ", factors ", change.q, ", ", change.k, " and ", change.v));
      ForwardResult r = forward_by(kernel, tiles, in, in.v);
      finish(r.partial.view(), r.lse);
      expect_observe(kernel, tiles, in, truth, 16);
      for (Index i = 0; i < 70; ++i) {
        EXPECT_NEAR(r.lse.at(i, 0), truth.forward.lse.at(i, 0), 2e-5 * coarseness(kernel));
        for (Index c = 0; c < 20; ++c) {
          const double high = largest(in.v);
          // one rounding of a subnormal number besides
          ASSERT_NEAR(r.partial.out.at(i, 0, c), truth.forward.partial.out.at(i, 0, c),
                      forward_bound * 3 * coarseness(kernel) * high + 600 * least)
              << "row " << i << " channel " << c;
        }
      }
    };
    for (const std::string& tier : runnable_tiers()) check(*make_tiled_kernel(in.problem, {}, tier));
    for (const char* tier : {"amx-split", "amx-fast"}) {
      const std::string name = sentence("twin-", tier);
      check(*cpu::make_kernel_of_tier(in.problem, {}, name, tile_twin_tier(tier)));
    }
  }
}

// A value that is not finite is met by who sees its key, and by nobody else: not by those whose weight for it is 0.
TEST(Tiled, InfiniteValuesReachThoseWhoSeeThem) {
  const double infinite = std::numeric_limits<double>::infinity();
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const Band band : {Band{-far, 463}, {200, 401}, {}}) {
      Inputs in(problem_of(40, 24, type), 70, 560, 35);
      // seen by none of the second band, by its first rows, by its last rows, by none again; 3: by all rows of the first
      for (const Index key : {3, 199, 230, 255, 450, 471})
        in.v.set(key, 0, key % 24, key % 2 == 0 ? infinite : -infinite);
      const std::vector<Tile> tiles{tile({0, 70}, {0, 557}, band)};
      const Truth truth(tiles, in);
      const double high = 6 * std::sqrt(24.0);
      const auto check = [&](Kernel& kernel) {
        SCOPED_TRACE(sentence(kernel.name(), ", ", name_of(type), ", band from ", band.lo, " to ", band.hi));
        ForwardResult r = forward_by(kernel, tiles, in, in.v);
        finish(r.partial.view(), r.lse);
        for (Index i = 0; i < 70; ++i)
          for (Index c = 0; c < 24; ++c) {
            const double exact = truth.forward.partial.out.at(i, 0, c), got = r.partial.out.at(i, 0, c);
            if (std::isfinite(exact))
              ASSERT_NEAR(got, exact, high * (forward_bound * coarseness(kernel) + rounding_of_p(kernel)))
                  << "row " << i << " channel " << c;
            else ASSERT_EQ(got, exact) << "row " << i << " channel " << c;
          }
      };
      for (const std::string& tier : runnable_tiers()) check(*make_tiled_kernel(in.problem, {}, tier));
      for (const char* tier : {"amx-bf16", "amx-split", "amx-fast"}) {
        const std::string name = sentence("twin-", tier);
        check(*cpu::make_kernel_of_tier(in.problem, {}, name, tile_twin_tier(tier)));
      }
    }
}

// The same of gradients: all rows, or some chunks of queries only.
TEST(Tiled, GradientsOfNumbersThatDoNotSplitAreComputedAllTheSame) {
  const std::vector<Tile> tiles{tile({0, 300}, {0, 170}, {-far, 0})};
  struct Factors {
    double q, k, v, dout;
    Index rows;  // of dout
  };
  for (const Factors& change : {Factors{1e20, 1e-20, 1, 1, 300},
                                {1, 1, 1e-20, 1e20, 300},
                                {1, 1, 1, 1e-35, 300},
                                {1, 1, 1, 1e25, 200},
                                {1, 1, 1, 1e-25, 200}}) {
    Inputs in(problem_of(40, 20, DType::f32), 300, 170, 33);
    in.q.each([&](Index i, Index h, Index c) { return in.q.at(i, h, c) * change.q; });
    in.k.each([&](Index j, Index h, Index c) { return in.k.at(j, h, c) * change.k; });
    in.v.each([&](Index j, Index h, Index c) { return in.v.at(j, h, c) * change.v; });
    in.dout.each([&](Index i, Index h, Index c) { return in.dout.at(i, h, c) * (i < change.rows ? change.dout : 1); });
    const Truth truth(tiles, in);
    const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
    GradientSheets exact(DType::f64, in, 0);
    for (Sheet* sheet : {&exact.dq, &exact.dk, &exact.dv}) sheet->fill(0);
    truth.kernel->backward(tiles, {in.q, in.dout, truth.forward.lse, truth.delta}, {in.k, in.v}, exact.view());
    const double rounding = 0x1p-24 * 20 * largest(in.dout) * largest(in.v) * in.problem.softmax_scale;
    const auto check = [&](Kernel& kernel) {
      SCOPED_TRACE(
          sentence(kernel.name(), ", factors ", change.q, ", ", change.k, ", ", change.v, " and ", change.dout));
      GradientSheets got(DType::f32, in, 0);
      for (Sheet* sheet : {&got.dq, &got.dk, &got.dv}) sheet->fill(0);
      kernel.backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
      const double coarse = coarseness(kernel);
      expect_gradient(got.dq, exact.dq, rounding * largest(in.k), got.dq, 0, coarse, "dq");
      expect_gradient(got.dk, exact.dk, rounding * largest(in.q), got.dk, 0, coarse, "dk");
      expect_gradient(got.dv, exact.dv, 0, got.dv, 0, coarse, "dv");
    };
    for (const std::string& tier : runnable_tiers()) check(*make_tiled_kernel(in.problem, {}, tier));
    for (const char* tier : {"amx-split", "amx-fast"}) {
      const std::string name = sentence("twin-", tier);
      check(*cpu::make_kernel_of_tier(in.problem, {}, name, tile_twin_tier(tier)));
    }
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

// Groups of keys take turns at the gradients of queries, groups of queries at what keys receive; many of them, more threads
// than cores, tiles in any order. One thread takes several groups at once where that ends: without waiting for itself.
TEST(Tiled, TurnsEndAndKeepTheirOrder) {
  Share share(2);
  const std::vector<std::vector<Tile>> calls{
      {tile({0, 500}, {0, 500}, {-far, 0})},
      {tile({0, 500}, {0, 500}, {-70, 20})},
      {tile({200, 500}, {0, 200}), tile({0, 350}, {0, 350}, {-far, 0}), tile({350, 500}, {350, 500}, {-far, 0})},
      {tile({0, 240}, {0, 260}, {-far, 0}), tile({240, 500}, {0, 260}), tile({240, 500}, {260, 500}, {-far, 0})},
  };
  for (const DType type : {DType::f32, DType::bf16}) {
    const bool joins = type == DType::bf16, traces = !joins;
    const Inputs in(problem_of(20, 12, type), 500, 500, 28);
    share.next_round();
    for (const std::vector<Tile>& tiles : calls) {
      if (!share.takes()) continue;
      const Truth truth(tiles, in);
      const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
      const auto check = [&](const auto& kernel_with) {
        const auto run = [&](int threads) {
          GradientSheets got(DType::f32, in, 0);
          kernel_with(threads)->backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, got.view());
          return got;
        };
        const auto trace = [&](int threads) {
          ObservationSheets got(DType::f32, in, 5, 16, 0);
          kernel_with(threads)->observe(tiles, in.q, in.k, lse, got.view());
          return got;
        };
        const GradientSheets one = run(1);
        const ObservationSheets one_trace = traces ? trace(1) : ObservationSheets(DType::f32, in, 5, 16, 0);
        for (const int threads : {2, 5, 5}) {
          const GradientSheets other = run(threads);
          EXPECT_TRUE(one.dq.same_bits(other.dq)) << threads << " threads";
          EXPECT_TRUE(one.dk.same_bits(other.dk)) << threads << " threads";
          EXPECT_TRUE(one.dv.same_bits(other.dv)) << threads << " threads";
          if (traces) {
            EXPECT_TRUE(one_trace.same_bits(trace(threads))) << threads << " threads";
          }
        }
        expect_backward(*kernel_with(joins ? 1 : 3), tiles, in, truth);
        if (traces) expect_observe(*kernel_with(3), tiles, in, truth, 16);
      };
      for (const std::string& tier : runnable_tiers()) {
        SCOPED_TRACE(tier);
        check([&](int threads) { return make_tiled_kernel(in.problem, {.threads = threads}, tier); });
      }
      const std::string twin = type == DType::bf16 ? "amx-bf16" : "amx-split", name = "twin-" + twin;
      SCOPED_TRACE(name);
      check([&](int threads) {
        return cpu::make_kernel_of_tier(in.problem, {.threads = threads}, name, tile_twin_tier(twin));
      });
    }
  }
}

// Adding nothing to it would be work at rows that belong to other groups at that moment; -0 + 0 is not -0.
TEST(Tiled, WhatAKeyReceivesThatNobodySeesIsLeftAlone) {
  const Inputs in(problem_of(8, 8, DType::f32), 40, 300, 35);
  const std::vector<Tile> tiles{tile({0, 40}, {0, 300}, {150, 170})};
  const Truth truth(tiles, in);
  const Sheet lse = rounded(truth.forward.lse);
  const auto check = [&](Kernel& kernel) {
    ObservationSheets seen(DType::f32, in, 1, 64, 0);
    seen.received.fill(-0.0);
    kernel.observe(tiles, in.q, in.k, lse, seen.view());
    for (Index j = 0; j < 300; ++j)
      EXPECT_EQ(std::signbit(seen.received.at(j, 2)), j < 150 || j >= 40 + 170) << kernel.name() << " key " << j;
  };
  for (const std::string& tier : runnable_tiers()) check(*make_tiled_kernel(in.problem, {}, tier));
  check(*cpu::make_kernel_of_tier(in.problem, {}, "twin-amx-split", tile_twin_tier("amx-split")));
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

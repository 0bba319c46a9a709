#include "kernel/agreement.hpp"

// Forward for the few rows of a decoding step (rowwise.hpp): whole vectors of channels, at most eight rows of a key/value head.

namespace annulus::test {
namespace {

TEST(Rowwise, EveryNumberOfRowsAndHeadsAgreesWithTheReferenceOnAnyThreads) {
  int round = 0;
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const auto& [queries, members] :
         {std::pair<Index, Index>{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 7}, {2, 1}, {2, 4}, {3, 2}, {5, 1}})
      for (const Index kv_heads : {1, 3, 9}) {
        const Index keys = round++ % 2 == 0 ? 2077 : 61;
        const Problem problem{.query_heads = kv_heads * members,
                              .kv_heads = kv_heads,
                              .channels = 32,
                              .value_channels = 48,
                              .group = members,
                              .type = type,
                              .softmax_scale = 0.2};
        // what all see, and what one after another sees at both ends; keys of a second tile
        const std::vector<Tile> tiles{tile({0, queries}, {0, keys}, {0, keys - queries}),
                                      tile({0, queries}, {keys, keys + 1})};
        const Inputs in(problem, queries, keys + 1, 61);
        const Truth truth(tiles, in);
        for (const std::string& tier : runnable_tiers()) {
          SCOPED_TRACE(
              sentence(tier, ", ", name_of(type), ", ", queries, " queries, ", kv_heads, " heads, each for ", members));
          const auto kernel = make_tiled_kernel(problem, {.threads = 1}, tier);
          expect_forward(*kernel, tiles, in, truth);
          if (testing::Test::HasFatalFailure()) return;
          const ForwardResult one = forward_by(*kernel, tiles, in, in.v);
          const auto other = make_tiled_kernel(problem, {.threads = 3}, tier);
          EXPECT_TRUE(one.partial.same_bits(forward_by(*other, tiles, in, in.v).partial));
        }
      }
}

// Scores that jump by thousands, up and down, or rise with every key: the reference moves, and nothing overflows.
TEST(Rowwise, HugeScoresNeitherOverflowNorVanish) {
  for (const double jump : {60.0, 1000.0, 1e4, -1e4, 1e6, 0.0}) {
    Inputs in({.channels = 16, .value_channels = 16, .softmax_scale = 1}, 2, 1500, 62);
    in.q.each([&](Index, Index, Index c) { return c == 0 ? 1.0 : 0.0; });
    in.k.each([&](Index j, Index, Index c) {
      const double at = jump == 0 ? 0.5 * static_cast<double>(j)
                                  : static_cast<double>(j / 100 % 4) * jump + 0.25 * static_cast<double>(j % 3);
      return c == 0 ? at : 0.0;
    });
    const std::vector<Tile> tiles{tile({0, 2}, {0, 1500}, {-far, 1490})};
    const Truth truth(tiles, in);
    for (const std::string& tier : runnable_tiers()) {
      SCOPED_TRACE(sentence("jump ", jump, ", ", tier));
      expect_forward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth,
                     1e-6 + 3 * 0x1p-24 * std::max(std::abs(jump), 750.0));
    }
  }
}

TEST(Rowwise, AScoreOfMinusInfinityIsAKeyThatDoesNotCount) {
  Inputs in({.channels = 16, .value_channels = 32, .softmax_scale = 0.5}, 2, 300, 63);
  const double infinite = std::numeric_limits<double>::infinity();
  in.q.each([](Index, Index, Index) { return 1.0; });
  for (Index j = 0; j < 300; ++j)
    if (j < 150 || j % 3 == 0) in.k.set(j, 0, 1, -infinite);
  const std::vector<Tile> tiles{tile({0, 1}, {0, 140}),
                                tile({1, 2}, {0, 300})};  // the first sees nothing but such keys
  const Truth truth(tiles, in);
  ASSERT_EQ(truth.forward.lse.at(0, 0), minus_infinity);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    expect_forward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth);
  }
}

TEST(Rowwise, NotANumberIsNotHidden) {
  for (const Index bad : {0, 64, 255}) {  // also where no other score has come before it
    Inputs in({.channels = 16, .value_channels = 16, .softmax_scale = 0.5}, 2, 256, 64);
    in.k.set(bad, 0, 3, std::numeric_limits<double>::quiet_NaN());
    for (Index j = 0; j < bad; ++j) in.k.set(j, 0, 0, in.q.at(0, 0, 0) > 0 ? -1e30 : 1e30);
    const std::vector<Tile> tiles{tile({0, 1}, {0, 256}), tile({1, 2}, {0, bad}), tile({1, 2}, {bad + 1, 256})};
    for (const std::string& tier : runnable_tiers()) {
      ForwardResult r = forward_by(*make_tiled_kernel(in.problem, {}, tier), tiles, in, in.v);
      EXPECT_TRUE(std::isnan(r.partial.out.at(0, 0, 0))) << tier << " key " << bad;
      EXPECT_TRUE(std::isnan(r.partial.sum.at(0, 0))) << tier << " key " << bad;
    }
  }
}

// A value that is not finite is met by who sees its key, and by nobody else.
TEST(Rowwise, InfiniteValuesReachThoseWhoSeeThem) {
  for (const Index keys : {5, 130}) {
    Inputs in({.channels = 16, .value_channels = 16, .softmax_scale = 0.5}, 3, keys, 66);
    in.v.set(keys - 2, 0, 4, std::numeric_limits<double>::infinity());
    const std::vector<Tile> tiles{tile({0, 3}, {0, keys}, {-far, keys - 3})};  // the last two rows see it
    for (const std::string& tier : runnable_tiers()) {
      ForwardResult r = forward_by(*make_tiled_kernel(in.problem, {}, tier), tiles, in, in.v);
      for (Index i = 0; i < 3; ++i)
        for (Index c = 0; c < 16; ++c)
          EXPECT_EQ(std::isfinite(r.partial.out.at(i, 0, c)), i == 0 || c != 4)
              << tier << " row " << i << " channel " << c;
      EXPECT_EQ(r.partial.out.at(1, 0, 4), std::numeric_limits<double>::infinity()) << tier;
    }
  }
}

// Errors of long sums grow as those of sums of sums.
TEST(Rowwise, LongRowsStayAsAccurateAsShortOnes) {
  for (const Index keys : {1'000, 200'000}) {
    const Inputs in({.channels = 16, .value_channels = 16, .softmax_scale = 0.25}, 1, keys, 65);
    const std::vector<Tile> tiles{tile({0, 1}, {0, keys})};
    const Truth truth(tiles, in);
    for (const std::string& tier : runnable_tiers()) {
      SCOPED_TRACE(sentence(tier, ", ", keys, " keys"));
      expect_forward(*make_tiled_kernel(in.problem, {}, tier), tiles, in, truth);
    }
  }
}

}  // namespace
}  // namespace annulus::test

#pragma once
#include <initializer_list>
#include <limits>
#include <random>

#include "annulus/plan/cost.hpp"

// Small schedules and plain prices for the tests of simulated time.

namespace annulus {

inline constexpr double endless = std::numeric_limits<double>::infinity();

/// One head of 1 + 1 channels in f32: a row of a K/V block is 8 bytes, as is one of its gradients; a pair takes a second.
inline Prices plain(LinkPrice link, bool backward = false) {
  Prices p{1, 1, 1, 1, 4, backward};
  p.forward = {{{1, 4.0}}, {}};
  p.backward_rates = {{{1, 10.0}}, {}};
  p.near = p.far = link;
  return p;
}

struct Random {
  std::mt19937 engine;
  int below(int n) { return static_cast<int>(engine() % static_cast<unsigned>(n)); }
  template <class T>
  T of(std::initializer_list<T> all) {
    return all.begin()[below(static_cast<int>(all.size()))];
  }
};

/// chains_only: of strategies whose blocks travel from seat to seat.
inline Schedule random_schedule(Random& random, bool chains_only) {
  const Index tokens = 1 + random.below(random.of({40, 400}));
  const char* partition = random.of({"contiguous", "zigzag", "striped", "balanced"});
  const char* mask = random.of({"full", "causal", "causal+window:9,0", "window:30,4", "causal+window:5,0+sink:2"});
  Grid grid{1, 1 + random.below(random.of({4, 40})), 1};
  if (random.below(3) == 0) grid = {1, 1 + random.below(4), 1 + random.below(12)};
  if (!chains_only) grid.travel = random.of({Travel::keys, Travel::gather, Travel::queries, Travel::tree});
  if (!chains_only && random.below(3) == 0) grid.heads = 2;
  return make_schedule(grid, partition, Mask::parse(mask, {tokens, tokens}));
}

}  // namespace annulus

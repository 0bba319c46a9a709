#pragma once
#include "kernel/cpu/blocks.hpp"
#include "kernel/cpu/fetch.hpp"
#include "kernel/cpu/tiles.hpp"

namespace annulus::cpu {
namespace {

/// sum += left right over `depth` pairs of blocks; steps: words from one to the next.
struct BlockProduct {
  const float* left;
  Index left_step;
  const float* right;
  Index right_step;
  Index depth;
  float* sum;
  const float* next = nullptr;  ///< the sum that follows, brought into L1 meanwhile
};

/// Terms of a left and of a right factor.
struct Terms {
  int left, right;
};

/// Which terms are multiplied: those with left + right <= reach, in an order in which only one of the two changes from
/// step to step, so that its tiles alone are loaded. A step that loads both is bound by loads when they miss L1: 9.7 ns
/// a product instead of 6.6.
template <int terms, int reach>
struct TermPath;
template <>
struct TermPath<1, 0> {
  static constexpr Terms steps[] = {{0, 0}};
};
template <>
struct TermPath<2, 1> {
  static constexpr Terms steps[] = {{0, 1}, {0, 0}, {1, 0}};
};
template <>
struct TermPath<2, 2> {
  static constexpr Terms steps[] = {{0, 1}, {1, 1}, {1, 0}, {0, 0}};
};
template <>
struct TermPath<3, 2> {
  static constexpr Terms steps[] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}, {0, 0}};
};

template <class Path>
constexpr int path_steps = static_cast<int>(sizeof(Path::steps) / sizeof(Terms));

/// A tile store that comes more than 0.8 us, 120 products, after the one before takes 0.25 us longer, 38 products.
template <class Path>
constexpr Index steps_between_stores = 96 / (4 * path_steps<Path>);

/// Nothing to do beside products.
struct NothingBeside {
  template <int slot, int slots>
  ANNULUS_INLINE void step() {}
  ANNULUS_INLINE void next() {}
  ANNULUS_INLINE bool idle() const { return true; }
  ANNULUS_INLINE NothingBeside take() const { return {}; }
};

/// Products one after another. The sums of a product begin while the lower half of those before is still computed and
/// stored: tile registers are not renamed, and one that is stored and used again at once would wait. fetches: whether
/// memory is brought from the next cache meanwhile.
template <bool fetches>
class Products {
 public:
  Fetch fetch;

  /// Every block of a factor is followed by those of its further terms. fresh: sums begin at 0. beside: what vector units do
  /// meanwhile, a slot after every two tile products of a pair of blocks unless it is idle.
  template <bool fresh, int terms, int reach, class Beside>
  ANNULUS_INLINE void multiply(const BlockProduct& p, Beside& beside) {
    using Path = TermPath<terms, reach>;
    for (Index column = 0; column < side; column += 2 * width) {
      float *upper = p.sum + column, *lower = upper + 16 * side;
      if constexpr (fresh) tile_zero<0>(), tile_zero<1>();
      else tile_load<0>(upper, side), tile_load<1>(upper + width, side);
      const float *left = p.left, *right = p.right + column;
      coming_ = p.next != nullptr ? p.next : p.sum;
      pair<fresh, true, Path>(left, right, lower, beside);
      for (Index n = 1; n < p.depth; ++n) {
        left += p.left_step, right += p.right_step;
        if (n % steps_between_stores<Path> == 0) tile_store<0>(upper, side);
        pair<fresh, false, Path>(left, right, lower, beside);
      }
      tile_store<0>(upper, side), tile_store<1>(upper + width, side);
      behind_ = lower;
    }
  }

  template <bool fresh, int terms, int reach>
  ANNULUS_INLINE void multiply(const BlockProduct& p) {
    NothingBeside nothing;
    multiply<fresh, terms, reach>(p, nothing);
  }

  /// Before sums are read.
  ANNULUS_INLINE void finish() {
    if (behind_ != nullptr) tile_store<2>(behind_, side), tile_store<3>(behind_ + width, side);
    behind_ = nullptr;
  }

 private:
  /// Between products of tiles. A pair of blocks brings a quarter of the sum that follows, evenly: lines that are asked for
  /// at once are waited for.
  template <bool fresh, int slot, int slots, class Beside>
  ANNULUS_INLINE void meanwhile(Beside& beside) {
    constexpr int line = 16, lines = sum_block / 4 / line;
    beside.template step<slot, slots>();
    if constexpr (fetches) fetch.step();
    if constexpr (!fresh)
#pragma GCC unroll 16
      for (int n = slot * lines / slots; n < (slot + 1) * lines / slots; ++n)
        __builtin_prefetch(coming_ + n * line, 1, 3);
  }

  template <bool fresh, bool first, class Path, class Beside>
  ANNULUS_INLINE void pair(const float* left, const float* right, float* lower, Beside& beside) {
    if (beside.idle()) {
      NothingBeside nothing;
      step<fresh, first, Path, 0>(left, right, lower, nothing);
    } else {
      auto pieces = beside.take();
      step<fresh, first, Path, 0>(left, right, lower, pieces);
    }
    beside.next();
    coming_ += sum_block / 4;
  }

  template <bool fresh, bool first, class Path, int n, class Beside>
  ANNULUS_INLINE void step(const float* left, const float* right, float* lower, Beside& beside) {
    constexpr Terms now = Path::steps[n];
    constexpr int slots = 2 * path_steps<Path>;
    const float *a = left + now.left * factor_block, *b = right + now.right * factor_block;
    if constexpr (n == 0) {
      tile_stream<4, tile_depth>(a, tile_depth);
      tile_stream<6>(b, side);
      tile_multiply<0, 4, 6>();
      tile_stream<7>(b + width, side);
      tile_multiply<1, 4, 7>();
      meanwhile<fresh, 2 * n, slots>(beside);
      if constexpr (first) {
        finish();
        if constexpr (fresh) tile_zero<2>(), tile_zero<3>();
        else tile_load<2>(lower, side), tile_load<3>(lower + width, side);
      }
      tile_stream<5, tile_depth>(a + 16 * tile_depth, tile_depth);
      tile_multiply<2, 5, 6>();
      tile_multiply<3, 5, 7>();
    } else if constexpr (now.left != Path::steps[n - 1].left) {
      static_assert(now.right == Path::steps[n - 1].right);
      tile_stream<4, tile_depth>(a, tile_depth);
      tile_multiply<0, 4, 6>();
      tile_multiply<1, 4, 7>();
      meanwhile<fresh, 2 * n, slots>(beside);
      tile_stream<5, tile_depth>(a + 16 * tile_depth, tile_depth);
      tile_multiply<2, 5, 6>();
      tile_multiply<3, 5, 7>();
    } else {
      tile_stream<6>(b, side);
      tile_multiply<0, 4, 6>();
      tile_multiply<2, 5, 6>();
      meanwhile<fresh, 2 * n, slots>(beside);
      tile_stream<7>(b + width, side);
      tile_multiply<1, 4, 7>();
      tile_multiply<3, 5, 7>();
    }
    meanwhile<fresh, 2 * n + 1, slots>(beside);
    if constexpr (n + 1 < path_steps<Path>) step<fresh, first, Path, n + 1>(left, right, lower, beside);
  }

  float* behind_ = nullptr;
  const float* coming_ = nullptr;
};

}  // namespace
}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/blocks.hpp"
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
};

/// Products one after another. The sums of a product begin while the lower half of those before is still computed and
/// stored: tile registers are not renamed, and one that is stored and used again at once would wait.
class Products {
 public:
  /// Every block of a factor is followed by those of its further terms; terms i and j are multiplied when i + j <= reach, the
  /// smallest products first. fresh: sums begin at 0.
  template <bool fresh, int terms, int reach>
  ANNULUS_INLINE void multiply(const BlockProduct& p) {
    for (Index column = 0; column < side; column += 2 * width) {
      float *upper = p.sum + column, *lower = upper + 16 * side;
      if constexpr (fresh) tile_zero<0>(), tile_zero<1>();
      else tile_load<0>(upper, side), tile_load<1>(upper + width, side);
      bool begun = false;
      for (int order = reach; order >= 0; --order)
        for (int i = order < terms ? order : terms - 1; i >= 0 && order - i < terms; --i) {
          const float *left = p.left + i * factor_block, *right = p.right + (order - i) * factor_block + column;
          for (Index n = 0; n < p.depth; ++n, left += p.left_step, right += p.right_step) {
            tile_load<4, tile_depth>(left, tile_depth);
            tile_load<6>(right, side);
            tile_multiply<0, 4, 6>();
            tile_load<7>(right + width, side);
            tile_multiply<1, 4, 7>();
            if (!begun) {
              begun = true;
              finish();
              if constexpr (fresh) tile_zero<2>(), tile_zero<3>();
              else tile_load<2>(lower, side), tile_load<3>(lower + width, side);
            }
            tile_load<5, tile_depth>(left + 16 * tile_depth, tile_depth);
            tile_multiply<2, 5, 6>();
            tile_multiply<3, 5, 7>();
          }
        }
      tile_store<0>(upper, side), tile_store<1>(upper + width, side);
      behind_ = lower;
    }
  }

  /// Before sums are read.
  ANNULUS_INLINE void finish() {
    if (behind_ != nullptr) tile_store<2>(behind_, side), tile_store<3>(behind_ + width, side);
    behind_ = nullptr;
  }

 private:
  float* behind_ = nullptr;
};

}  // namespace
}  // namespace annulus::cpu

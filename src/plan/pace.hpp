#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "annulus/plan/cost.hpp"

namespace annulus {

/// What a pair of a tile takes, looked up by the tile's size. The rates were measured on squares of n x n tokens; a tile of
/// r x k takes its rate at n = 2 r k / (r + k), which is exact when a kernel has a fixed cost per row and one per key; and where
/// rows are few, at least what reading the keys takes.
class Pace {
 public:
  /// transposed: the rows of tiles are keys, because queries travel.
  Pace(const Rates& rates, double operations_per_pair, double seconds_per_key, bool transposed);

  /// Seconds of a tile that is seen whole.
  double full(Index rows, Index keys) const {
    const auto r = static_cast<double>(rows), k = static_cast<double>(keys);
    return std::max(r * k * at(full_, 2 * r * k / (r + k)), r * seconds_per_row_ + k * seconds_per_column_);
  }
  /// Seconds of so many pairs in tiles of rows x keys.
  double full(Index rows, Index keys, Index pairs) const {
    const Index area = rows * keys;
    return area == 0 ? 0 : full(rows, keys) * static_cast<double>(pairs) / static_cast<double>(area);
  }
  /// Seconds of a tile cut by a band.
  ///   causal n x n: n (n + 1) / 2 pairs and n rows that end at the diagonal; a band of w keys over n rows: n w pairs and
  ///   2 n ends. So 2 pairs / ends is the size of the triangle that has as much to compute for every end of a row.
  double cut(const Tile& tile, Index pairs) const {
    const auto r = static_cast<double>(tile.q.count()), k = static_cast<double>(tile.k.count());
    const auto p = static_cast<double>(pairs), e = static_cast<double>(ends(tile));
    return std::max(p * at(cut_, std::min(2 * r * k / (r + k), e > 0 ? 2 * p / e : k)),
                    r * seconds_per_row_ + k * seconds_per_column_);
  }
  double least() const { return least_; }

 private:
  using Table = std::array<double, 128>;  // seconds per pair at 2^(i / 2) tokens
  // How often a row of the tile ends, on either side, at the band and not at the tile.
  static Index ends(const Tile& tile) {
    const Index rows = tile.q.count();
    const Index hi = tile.band.hi >= far ? 0 : std::clamp<Index>(tile.k.count() - 1 - tile.band.hi, 0, rows);
    const Index lo = tile.band.lo <= -far ? 0 : std::clamp<Index>(rows - 1 + tile.band.lo, 0, rows);
    return hi + lo;
  }
  // A straight line between the entries.
  static double at(const Table& table, double tokens) {
    const auto bits = std::bit_cast<std::uint64_t>(std::max(1.0, tokens * tokens));
    const auto i = static_cast<std::size_t>((bits >> 52U) - 1023U);
    const double over = std::bit_cast<double>((bits & ((1ULL << 52U) - 1U)) | (1023ULL << 52U)) - 1;
    return table[i] + over * (table[i + 1] - table[i]);
  }
  Table full_{}, cut_{};
  double least_ = 0, seconds_per_row_, seconds_per_column_;  // of reading: that of the two which stands for keys
};

/// Of both passes; a schedule without backward uses the first.
struct Paces {
  Pace forward, backward;
  Paces(const Schedule& job, const Prices& prices);
};

}  // namespace annulus

#pragma once
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/range.hpp"

namespace annulus {

/// Which rank owns which tokens: for each rank a few runs; together they cover [0, tokens) exactly once. A rank's rows
/// are numbered run after run. Any length, any number of ranks; a shard may be empty.
class Partition {
 public:
  ///  ranks = 2, tokens = 8:   contiguous  0 0 0 0 1 1 1 1    zigzag  0 0 1 1 1 1 0 0    striped  0 1 0 1 0 1 0 1
  static Partition contiguous(Index tokens, int ranks);
  static Partition zigzag(Index tokens, int ranks);
  static Partition striped(Index tokens, int ranks);
  /// Blocks of tokens dealt so that every rank gets its share of the mask's visible pairs, step by step of the ring as
  /// well as in total. weights: relative speeds of the ranks (empty: all equal). Query rows only: tokens =
  /// mask.queries().
  static Partition balanced(const Mask& mask, int ranks, std::span<const double> weights = {});
  /// Runs as given; throws Error (usage) unless they cover [0, tokens) exactly once.
  static Partition of(Index tokens, const std::vector<std::vector<Run>>& runs, std::string name);

  /// Seats of `size` neighbouring ranks that share their tokens: row order is rank after rank.
  Partition joined(int size) const;

  const std::string& name() const { return name_; }
  Index tokens() const { return tokens_; }
  int ranks() const { return static_cast<int>(rows_.size()); }
  std::span<const Run> runs(Rank rank) const {
    const std::size_t r = place_of(rank);
    return std::span(runs_).subspan(first_[r], first_[r + 1] - first_[r]);
  }
  /// Rows the rank owns.
  Index rows(Rank rank) const { return rows_[place_of(rank)]; }
  Index largest() const;
  /// The global position of a rank's row.
  Index position(Rank rank, Index row) const;

 private:
  Partition(Index tokens, const std::vector<std::vector<Run>>& runs, std::string name);
  std::size_t place_of(Rank rank) const {
    require(rank >= 0 && rank < ranks(), "there is no rank ", rank, " among ", ranks());
    return static_cast<std::size_t>(rank);
  }
  Index tokens_ = 0;
  std::vector<Run> runs_;           // rank after rank
  std::vector<std::size_t> first_;  // where those of each rank begin, and the end
  std::vector<Index> rows_;
  std::string name_;
};

/// By name: contiguous, zigzag, striped, balanced. Throws Error (usage) for another name.
Partition make_partition(std::string_view name, Index tokens, int ranks, const Mask& mask,
                         std::span<const double> weights = {});

}  // namespace annulus

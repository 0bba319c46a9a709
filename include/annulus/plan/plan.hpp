#pragma once
#include <optional>
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/partition.hpp"
#include "annulus/geometry/range.hpp"
#include "annulus/plan/itinerary.hpp"

namespace annulus {

struct Sight;

inline constexpr Rank nobody = -1;

/// Rows of a block on their way to or from a seat, numbered as in the shard of the block's owner.
struct Move {
  Rank seat = nobody;
  std::vector<Range> rows;
  bool operator==(const Move&) const = default;
};

/// What one seat does in one step: compute the tiles while blocks move.
///
/// Blocks of K/V rows. A block travels along a *chain* of seats that use it in turn, straight from one to the next. The
/// next user gets it from the one before when that one still has room for it and holds all the rows it needs; otherwise
/// the chain ends, and the owner, who always has the whole block, sends it again (`lend`). So everybody receives exactly
/// the rows it uses. A block arrives in the batch of the step before its use: a seat needs two buffers.
///
/// Gradients of a block (and per-key sums of traces) ride along the same chain one step behind: what the next holder
/// does not hold goes home to the owner (`give_back`), the rest rides on with `forward`.
struct Step {
  std::vector<Move> held;             ///< whose rows are here (seat: their owner), one after another in the buffer
  std::vector<Tile> tiles;            ///< work: q counts own query rows, k counts the held rows
  std::optional<Move> forward;        ///< the held block leaves for its next user
  std::vector<Move> lend;             ///< the own block leaves again for a user further on
  std::vector<Move> arrive;           ///< what the next step holds, in the same order, and the seats it comes from
  bool arrives_used = false;          ///< ... which have used it, so gradients ride with it
  std::vector<Move> give_back;        ///< gradient rows that go home from here (seat: their owner)
  std::vector<Move> homecoming;       ///< gradient rows of the own block that come home
  /// The owner of what is held here; nobody when nothing is held.
  Rank origin() const { return held.empty() ? nobody : held.front().seat; }
};

/// What one seat does, as data: printed, proven, priced and executed. No transport and no numbers in it.
struct Plan {
  Rank seat = 0;
  Index query_rows = 0, key_rows = 0;  ///< own rows
  std::vector<Step> steps;             ///< all seats have equally many

  /// What arrives at once at most, in rows: the size of each of the two buffers.
  Index buffer_rows() const;
  Index pairs() const;
};

/// Makes the plan of any seat on its own, without those of the others: in a time and memory that grow with the number of
/// seats, not with its square. Steps in which nobody computes are left out, except step 0.
class Planner {
 public:
  /// queries and keys: who owns what, by seat (Partition::joined(grid.heads)). Throws Error (usage) when something does
  /// not fit together.
  Planner(const Grid& grid, Partition queries, Partition keys, Mask mask);

  const Grid& grid() const { return grid_; }
  int seats() const { return grid_.seats(); }
  int steps() const { return static_cast<int>(visits_.size()); }
  /// The step of the itinerary, as visit() counts them, that is step `step` of the plans.
  int visit_of(int step) const { return visits_[static_cast<std::size_t>(step)]; }
  const Partition& queries() const { return queries_; }
  const Partition& keys() const { return keys_; }
  const Mask& mask() const { return mask_; }
  /// What a seat sees of the block of another.
  void look(Rank seat, Rank origin, Sight& into) const;

  Plan plan(Rank seat) const;

 private:
  Grid grid_;
  Partition queries_, keys_;
  Mask mask_;
  bool ordinary_;                          // see look_at_ordinary()
  std::vector<std::vector<Range>> reach_;  // by seat: seats among which are all those whose blocks it works on
  std::vector<int> visits_;                // steps of the itinerary in which anybody works
};

/// Where owner rows [range) lie inside a list of held ranges, counted in held rows. Throws Error when they are not
/// held.
Range within(const std::vector<Range>& held, Range range);
/// The same among the blocks of several owners that lie one after another.
Range within(const std::vector<Move>& held, Rank owner, Range range);
/// Rows of all blocks together.
Index count(std::span<const Move> moves);

/// A whole job: who owns what, who may see what, who does what.
struct Schedule {
  Grid grid;
  Mask mask;
  Partition queries, keys;  ///< by rank
  Planner planner;          ///< by seat

  Rank seat_of(Rank rank) const { return rank / grid.heads; }
  int lane_of(Rank rank) const { return rank % grid.heads; }
  Plan plan_of(Rank seat) const { return planner.plan(seat); }
};

/// Partitions by name. Throws Error (usage) when something does not fit together.
Schedule make_schedule(const Grid& grid, std::string_view partition, const Mask& mask,
                       std::span<const double> weights = {});

}  // namespace annulus

#pragma once
#include <optional>
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/partition.hpp"
#include "annulus/geometry/range.hpp"
#include "annulus/plan/itinerary.hpp"

namespace annulus {

inline constexpr Rank nobody = -1;

/// Rows of a K/V block on their way to or from a seat, numbered as in the shard of the block's owner.
struct Move {
  Rank seat = nobody;
  std::vector<Range> rows;
};

/// What one seat does in one step: compute the tiles while blocks move.
///
/// K/V blocks. A block travels along a *chain* of seats that use it in turn, straight from one to the next, with only the
/// rows that somebody later in the chain needs. When the present holder must make room before the next user is due, the
/// chain ends and the owner, who always has the block, sends it again (`lend`). A block arrives in the batch of the step
/// before its use, so a seat needs two buffers and nobody ever receives what it does not use.
///
/// Gradients of a block (and per-key sums of traces) ride along the same chain one step behind: what the next holder does
/// not hold goes home to the owner (`give_back`), the rest rides on with `forward`.
struct Step {
  Rank origin = nobody;            ///< owner of the block held here; nobody when there is none
  std::vector<Range> held;         ///< its rows that are here
  std::vector<Tile> tiles;         ///< work: q counts own query rows, k counts the held rows
  std::optional<Move> forward;     ///< the held block leaves for its next user
  std::optional<Move> lend;        ///< the own block leaves again for a user further on
  std::optional<Move> arrive;      ///< the block of the next step comes from this seat
  bool arrives_used = false;       ///< ... which has used it, so gradients ride with it
  std::optional<Move> give_back;   ///< gradient rows that go home from here (seat = origin)
  std::optional<Move> homecoming;  ///< gradient rows of the own block that come home
};

/// What one seat does, as data: printed, proven, priced and executed. No transport and no numbers in it.
struct Plan {
  Rank seat = 0;
  Index query_rows = 0, key_rows = 0;  ///< own rows
  std::vector<Step> steps;             ///< all seats have equally many

  /// The largest visiting block, in rows: the size of each of the two buffers.
  Index buffer_rows() const;
  Index pairs() const;
};

/// Plans for all seats of the grid. queries and keys: who owns what, by seat (Partition::joined(grid.heads)).
/// Steps in which nobody computes are left out, except step 0.
std::vector<Plan> make_plans(const Grid& grid, const Partition& queries, const Partition& keys, const Mask& mask);

/// Where owner rows [range) lie inside a list of held ranges, counted in held rows. Throws Error when they are not held.
Range within(const std::vector<Range>& held, Range range);

/// A whole job: who owns what, who may see what, who does what.
struct Schedule {
  Grid grid;
  Mask mask;
  Partition queries, keys;  ///< by rank
  std::vector<Plan> plans;  ///< by seat

  Rank seat_of(Rank rank) const { return rank / grid.heads; }
  int lane_of(Rank rank) const { return rank % grid.heads; }
};

/// Partitions by name and plans. Throws Error (usage) when something does not fit together.
Schedule make_schedule(const Grid& grid, std::string_view partition, const Mask& mask,
                       std::span<const double> weights = {});

}  // namespace annulus

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
/// Blocks of K/V rows (of queries, when queries travel). A block travels along a *chain* of seats that use it in turn, straight from one to the next. The
/// next user gets it from the one before when that one still has room for it and holds all the rows it needs; otherwise
/// the chain ends, and the owner, who always has the whole block, sends it again (`lend`). So everybody receives exactly
/// the rows it uses. A block arrives in the batch of the step before its use: a seat needs two buffers.
///
/// Gradients of a block (and per-key sums of traces) ride along the same chain one step behind: what the next holder
/// does not hold goes home to the owner (`give_back`), the rest rides on with `forward`. So do the partial results of
/// queries that travel.
///
/// When blocks are gathered there are no chains: several arrive in one step, each from its owner.
struct Step {
  std::vector<Move> held;             ///< whose rows are here (seat: their owner), one after another in the buffer
  std::vector<Tile> tiles;            ///< work: q counts own query rows, k the held rows (or q held, k own key rows)
  std::optional<Move> forward;        ///< the held block leaves for its next user
  std::vector<Move> lend;             ///< the own block leaves again for a user further on
  std::vector<Move> arrive;           ///< what the next step holds, in the same order, and the seats it comes from
  bool arrives_used = false;          ///< ... which have used it, so gradients ride with it
  std::vector<Move> give_back;        ///< gradient rows that go home from here (seat: their owner)
  std::vector<Move> homecoming;       ///< gradient rows of the own block that come home
  /// The owner of what is held here; nobody when nothing is held.
  Rank origin() const { return held.empty() ? nobody : held.front().seat; }
};

/// One round in which two seats merge what they know of the same queries. Rows are counted among all queries, seat after
/// seat. What is sent is forgotten by its sender. All seats have equally many rounds; nobody: idle in this one.
struct Merge {
  Rank peer = nobody;
  std::vector<Range> send, receive;
};

/// What one seat does, as data: printed, proven, priced and executed. No transport and no numbers in it.
struct Plan {
  Rank seat = 0;
  Index query_rows = 0, key_rows = 0;  ///< own rows
  Index own_rows = 0;                  ///< those of the two that travel
  std::vector<Step> steps;             ///< all seats have equally many
  std::vector<Merge> merges;           ///< after the steps; Travel::tree only

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
  int steps() const { return static_cast<int>(first_.size()) - 1; }
  /// The steps of the itinerary, as visit() counts them, that are one step of the plans: several when blocks are gathered.
  std::span<const int> visits(int step) const;
  const Partition& queries() const { return queries_travel(grid_.travel) ? travel_ : stay_; }
  const Partition& keys() const { return queries_travel(grid_.travel) ? stay_ : travel_; }
  /// The side that stays and the side that travels, and what the first sees of the second.
  const Partition& stays() const { return stay_; }
  const Partition& travels() const { return travel_; }
  const Mask& seen() const { return seen_; }
  /// Whether one band holds for all of them, and all runs have strides that fit.
  bool ordinary() const { return ordinary_; }
  /// What the rows that stay at a seat see of the block of another, or of all of it where everything is gathered.
  void look(Rank seat, Rank origin, Sight& into) const;
  /// The seats among which are all those whose blocks a seat works on, and how many looks at such pairs find all work.
  std::span<const Range> reach(Rank seat) const { return reach_[static_cast<std::size_t>(seat)]; }
  Index looks() const { return looks_; }

  /// All pairs of the rows that stay at a seat.
  Index pairs_of(Rank seat) const;

  Plan plan(Rank seat) const;
  /// The rounds of Plan::merges alone.
  std::vector<Merge> merges(Rank seat) const;

 private:
  std::vector<Tile> meet(Rank seat, Rank origin) const;
  std::vector<bool> find_active() const;
  void add_visit(Plan& plan, int step, int next_busy) const;
  void add_owner(Plan& plan) const;
  void add_gathered(Plan& plan, int step) const;

  Grid grid_;
  Partition stay_, travel_;
  Mask seen_;                              // queries of it: the side that stays
  bool ordinary_ = false;                  // see look_at_ordinary()
  std::vector<std::vector<Range>> reach_;  // by seat
  Index looks_ = 0;
  std::vector<int> visits_;                // steps of the itinerary in which anybody works
  std::vector<std::size_t> first_;         // where those of each step begin
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

/// The same shards on the same grid, with K/V blocks that travel from seat to seat: as traces run where queries travel, and
/// the gradients of a tree.
Schedule ring_of(const Schedule& schedule);

/// The same shards on the same grid for another mask of as many queries and keys. Throws Error (usage) for one of others.
Schedule with_mask(const Schedule& schedule, const Mask& mask);

/// The weight of each rank where so many neighbours share tokens and split the heads evenly: that of the slowest of them.
///   weights 1 3 2 2, heads = 2:   1 1 2 2
std::vector<double> weights_in_seats(std::span<const double> weights, int heads);

/// Weights, their mean being 1, of ranks that were measured to work at these rates; empty, all equal, where these differ by less
/// than 5 %, which is what equal processors seem to differ by from one moment to the next.
std::vector<double> weights_of_rates(std::span<const double> rates);

/// Partitions by name. weights: relative speeds of the ranks (empty: all equal), for `balanced`; ranks of a seat count as the
/// slowest of them. Throws Error (usage) when something does not fit together.
Schedule make_schedule(const Grid& grid, std::string_view partition, const Mask& mask,
                       std::span<const double> weights = {});

}  // namespace annulus

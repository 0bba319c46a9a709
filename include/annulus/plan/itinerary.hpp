#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "annulus/base/types.hpp"

namespace annulus {

/// What travels between seats, and how.
///   keys     blocks of K/V rows, from seat to seat, one per step
///   gather   blocks of K/V rows, straight from their owners, those of a whole inner ring in one step
///   queries  blocks of queries, from seat to seat; what they have gathered follows and comes home
///   tree     all queries to all seats in one step; partial results are merged pairwise (see Merge)
enum class Travel : std::uint8_t { keys, gather, queries, tree };
constexpr bool queries_travel(Travel travel) { return travel == Travel::queries || travel == Travel::tree; }

/// heads x inner x outer = ranks. Ranks seat * heads, ..., seat * heads + heads - 1 form a seat: they share their
/// tokens and split the heads. Seats form `outer` inner rings of `inner` seats each.
///   ring 1xPx1     double ring 1xIxO     Ulysses Px1x1     2D hybrid HxIxO
struct Grid {
  int heads = 1, inner = 1, outer = 1;
  Travel travel = Travel::keys;
  int seats() const { return inner * outer; }
  int ranks() const { return heads * seats(); }
  bool operator==(const Grid&) const = default;
};

/// "2x4x1", with K/V blocks that travel; throws Error (usage) for anything else.
Grid parse_grid(std::string_view text);
std::string to_text(const Grid& grid);

/// Whose block a seat holds at a step, before visits without work are dropped. Every row is a permutation of the
/// seats and row 0 is the identity. The block of a seat moves on inside its inner ring; after a full turn everybody
/// jumps to the next inner ring (outer = 1: the plain ring).
///
///   inner = 2, outer = 2     seat     0 1 2 3
///                            step 0   0 1 2 3
///                                 1   1 0 3 2
///                                 2   2 3 0 1     after one turn: the other inner ring
///                                 3   3 2 1 0
Rank visit(const Grid& grid, int step, Rank seat);
/// The other way round: the seat that holds the block of `origin` at a step, visit(grid, step, host(...)) == origin.
Rank host(const Grid& grid, int step, Rank origin);
/// The step at which a seat holds the block of `origin`.
int step_of(const Grid& grid, Rank seat, Rank origin);

/// What is known when a strategy is asked for its grid.
struct Request {
  int ranks = 1;
  int ranks_per_node = 1;
  Index query_heads = 1, kv_heads = 1;
};

/// A named strategy: the grid it would use, or the reason why it cannot be used.
struct Strategy {
  std::string_view name, what;
  Travel travel;
  /// Returns the grid, or throws Error (usage) with the reason.
  Grid (*grid)(const Request&);
};

/// ring, double-ring, ulysses, hybrid, all-gather, pass-q, tree.
std::span<const Strategy> strategies();
/// The strategy of this name; throws Error (usage) that lists the names.
const Strategy& find_strategy(std::string_view name);
/// The strategy that a grid belongs to.
std::string_view strategy_of(const Grid& grid);

}  // namespace annulus

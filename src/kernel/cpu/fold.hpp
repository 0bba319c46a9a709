#pragma once
#include <optional>
#include <span>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "annulus/kernel/kernel.hpp"
#include "kernel/cpu/scratch.hpp"
#include "kernel/cpu/tier.hpp"

// Few query rows leave most lanes of a block empty: one query of a decoding step fills one of 48. So the query heads that share
// a key/value head are folded into the lanes, and the keys are split into shares with rows of their own, so that many threads
// find work:
//
//   folded row = share * rows + query * members + member          rows: those of a share, in whole blocks of lanes
//
// What a query sees of a tile is a range of keys. Those that all its queries see are one piece for all of them; what single
// queries see beside that is a piece for each, fewer keys than there are queries.

namespace annulus::cpu {

/// Which query heads share a key/value head; those of a lane may begin and end inside a group.
struct Heads {
  Index count, group, phase;
  Index kv_head(Index h) const { return (h + phase) / group; }
  Range sharing(Index g) const { return overlap(Range{0, count}, Range{g * group - phase, (g + 1) * group - phase}); }
  /// By how many a key/value head is shared at most.
  Index most_sharing(Index kv_heads) const;
};

/// What there is to fold.
struct FewQueries {
  Index queries;
  Index members;  ///< query heads of a key/value head, at most
  Index kv_heads;
  Index lanes, folded_lanes;  ///< of a block, without folding and with it
  Index heads_together = 1;   ///< that an item of one block may have
};

struct Folding {
  Index members = 1, shares = 1, rows = 0;
  Index heads_together = 1;  ///< key/value heads of an item
  std::vector<Piece> pieces;  ///< lanes: folded rows

  Index pairs() const;
};

/// Nothing where whole blocks of plain rows cost less. It depends on shapes only: the same call gives the same bits.
std::optional<Folding> fold(std::span<const Tile> tiles, const FewQueries& of);

/// Queries in the order of lanes, a head for every key/value head, and a partial result of theirs that has met nothing yet:
/// `out` of it is not cleared. Both lie in `memory`, as long as nobody else takes it.
class FoldedRows {
 public:
  FoldedRows(const Folding& folding, const Problem& problem, const Heads& heads, const Rows& q, Scratch& memory);
  const Rows& q() const { return q_; }
  const Partial& partial() const { return partial_; }
  /// Merges the results of all shares into those of the queries, which are the first rows of `into`.
  void merge(const Partial& into) const;

 private:
  const Folding& folding_;
  const Heads& heads_;
  Index queries_;
  Rows q_;
  Partial partial_;
};

}  // namespace annulus::cpu

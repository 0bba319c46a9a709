#pragma once
#include <span>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "kernel/cpu/tier.hpp"

namespace annulus::cpu {

/// Rows of one head that one thread works on at a time, with what the tiles of a call ask of them.
struct RowGroup {
  Index begin = 0, end = 0;
  std::vector<Piece> pieces;  ///< in the order of the tiles
  Index pairs = 0;            ///< how many are seen: the longest group starts first

  Group view() const { return {begin, end, pieces.data(), static_cast<Index>(pieces.size())}; }
};

/// The tile with its queries, or its keys, in the lanes.
Piece queries_in_lanes(const Tile& tile);
Piece keys_in_lanes(const Tile& tile);

/// Rows of each of about `wanted` groups or more: a multiple of the tier's `lanes`, not above `most`, which is what the
/// tier has room for (`lanes` at least).
Index rows_per_group(Index rows, Index most, Index lanes, Index wanted);

/// Cuts rows [0, rows) into groups of `size`, a multiple of a tier's lanes, and gives each its pieces. Groups that no
/// piece touches are left out. The cut depends on shapes only, never on the number of threads. Longest first.
std::vector<RowGroup> group_rows(std::span<const Piece> pieces, Index rows, Index size);

/// Some groups of a list as one, of several parts.
struct JoinedGroups {
  Index first, count;
  Index begin, end;  ///< rows
  Index pairs;
};

/// Joins groups of a list to neighbours that follow, to at most `most` rows, where they meet the same pieces, and these come
/// one after another in steps: no part then waits for what another has yet to do (for_each_chunk).
std::vector<JoinedGroups> joined(std::span<const RowGroup> groups, Index most);

/// Rows [from, from + size) of one head that are packed together.
struct Chunk {
  Index from, size;
};

/// Cuts the steps of all pieces into chunks of `steps`, from each piece's first on, and gives each piece the number of its
/// first one. Pieces that begin at the same step share chunks.
std::vector<Chunk> cut_chunks(std::span<Piece> pieces, Index steps);

/// The parts of the pieces that meet chunks [chunks.begin, chunks.end), which are numbered from 0 then.
std::vector<Piece> pieces_within(std::span<const Piece> pieces, Index steps, Range chunks);

/// Chunks, and the pieces as far as the chunks of each round go. Without chunks (steps = 0): one round of whole pieces.
struct Rounds {
  std::vector<Chunk> chunks;
  Index at_once = 0;  ///< chunks in a round
  std::vector<std::vector<Piece>> pieces;

  std::span<const Chunk> chunks_of(std::size_t round) const;
};

/// At most `room` chunks a round. Fewer where rows see little: so many that few rows meet chunks of two rounds, while the
/// packed ones are still in a cache near by.
Rounds cut_rounds(std::vector<Piece> pieces, Index steps, Index room);

/// The last round that has pieces of each group of `size` rows; the number of rounds where none has.
std::vector<std::size_t> last_rounds(const Rounds& rounds, Index rows, Index size);

/// Groups for statistics of queries: every piece holds at most `size` rows, and queries of one block of the map
/// (block_tokens positions) are always in one group, so that each cell of the map has one owner. block_tokens = 0: no
/// map is wanted.
std::vector<RowGroup> group_queries(std::span<const Tile> tiles, Index size, Index block_tokens);

}  // namespace annulus::cpu

#pragma once
#include "kernel/cpu/turns.hpp"

// In what order a group of keys meets queries backward, whatever multiplies them.
//
// Every group of keys adds to the same rows of dQ, so groups take turns there: the order of a sum is that of the groups,
// whichever thread comes first. Queries are walked from the last to the first: under a causal mask all groups see the
// last ones, and nobody has to wait for rows that another group reaches late.

namespace annulus::cpu {
namespace {

/// Queries of one head that are read at once for all parts of a group: rows; begin: the first one that some key sees.
struct QueryChunk {
  const Piece& piece;
  Index head;
  Steps rows;
  Index begin;
};

/// For every chunk of at most `size` queries that the group sees, the last ones first, calls read(queries); then for each part
/// that sees some of it differentiate(queries, part, rows), with rows from the chunk's first to the last that the part sees,
/// and add(queries, rows, begin) when it is the part's turn to add to those from `begin` on. Pieces of several parts lie one
/// after another in rows: a part waits for no work that comes later.
template <Index size, class Read, class Differentiate, class Add>
ANNULUS_INLINE void for_each_chunk(const GradientItem& item, const Read& read, const Differentiate& differentiate,
                                   const Add& add) {
  const Group& group = item.group;
  const Index parts = (group.end - group.begin + item.part_lanes - 1) / item.part_lanes;
  const auto part_at = [&](Index p) {
    const Index begin = group.begin + p * item.part_lanes;
    return Steps{begin, least(begin + item.part_lanes, group.end)};
  };
  const auto seen_by = [&](Steps part, Index n) { return steps_seen(group.pieces[n], part.begin, part.end); };
  const auto end_of = [&](Steps part, Index pieces) {  // of the rows that the first pieces show a part
    Index end = 0;
    for (Index n = 0; n < pieces; ++n) {
      const Steps seen = seen_by(part, n);
      if (seen.begin < seen.end) end = most(end, seen.end);
    }
    return end;
  };
  for (Index n = group.piece_count - 1; n >= 0; --n) {
    const Piece& piece = group.pieces[n];
    const Steps seen = seen_by({group.begin, group.end}, n);
    if (seen.begin >= seen.end) continue;
    const Index last = seen.end - 1 - (seen.end - 1 - piece.step_begin) % size;  // cut alike for every group
    for (Index head = 0; head < item.heads; ++head) {
      const Index turn_head = item.first_head + head;
      for (Index p = 0; p < parts; ++p) end_turn(item.turns, turn_head, end_of(part_at(p), n + 1), p);
      for (Index from = last; from + size > seen.begin; from -= size) {
        const QueryChunk queries{piece, head, {from, least(from + size, seen.end)}, most(seen.begin, from)};
        read(queries);
        for (Index p = 0; p < parts; ++p) {
          const Steps part = part_at(p), here = seen_by(part, n), rows{from, least(queries.rows.end, here.end)};
          const Index begin = most(here.begin, from);
          if (begin >= rows.end) continue;
          differentiate(queries, part, rows);
          await_turn(item.turns, turn_head, begin, p);
          add(queries, rows, begin);
          end_turn(item.turns, turn_head, most(end_of(part, n), here.begin < from ? from : 0), p);
        }
      }
    }
  }
  for (Index head = 0; head < item.heads; ++head)
    for (Index p = 0; p < parts; ++p) end_turn(item.turns, item.first_head + head, -1, p);
}

}  // namespace
}  // namespace annulus::cpu

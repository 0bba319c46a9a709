#include "kernel/cpu/groups.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace annulus::cpu {
namespace {

// Bounds beyond every position, small enough to add row numbers to.
Index bounded(Index bound) { return std::clamp(bound, -far, far); }

Index steps_of(const Piece& piece, Index row) {
  return std::max<Index>(0, std::min(piece.step_end, row + piece.hi + 1) - std::max(piece.step_begin, row + piece.lo));
}

Index pairs_of(const Piece& piece, Index begin, Index end) {
  Index pairs = 0;
  for (Index row = std::max(begin, piece.lane_begin); row < std::min(end, piece.lane_end); ++row)
    pairs += steps_of(piece, row);
  return pairs;
}

void longest_first(std::vector<RowGroup>& groups) {
  std::ranges::stable_sort(groups, std::ranges::greater{}, &RowGroup::pairs);
}

}  // namespace

Piece queries_in_lanes(const Tile& tile) {
  const Index shift = tile.k.begin - tile.q.begin;
  return {.lane_begin = tile.q.begin,
          .lane_end = tile.q.end,
          .step_begin = tile.k.begin,
          .step_end = tile.k.end,
          .lo = bounded(tile.band.lo) + shift,
          .hi = bounded(tile.band.hi) + shift,
          .lane_at = tile.q_at,
          .step_at = tile.k_at,
          .stride = tile.stride};
}

Piece keys_in_lanes(const Tile& tile) {
  const Piece other = queries_in_lanes(tile);
  return {.lane_begin = other.step_begin,
          .lane_end = other.step_end,
          .step_begin = other.lane_begin,
          .step_end = other.lane_end,
          .lo = -other.hi,
          .hi = -other.lo,
          .lane_at = other.step_at,
          .step_at = other.lane_at,
          .stride = other.stride};
}

Index rows_per_group(Index rows, Index most, Index lanes, Index wanted) {
  const Index limit = most / lanes * lanes;  // rounding up must not pass it
  const Index groups = std::max<Index>({1, ceil_div(rows, limit), wanted});
  return std::max<Index>(1, ceil_div(rows, groups * lanes)) * lanes;
}

std::vector<RowGroup> group_rows(std::span<const Piece> pieces, Index rows, Index size) {
  std::vector<RowGroup> groups(static_cast<std::size_t>(ceil_div(rows, size)));
  for (std::size_t g = 0; g < groups.size(); ++g) {
    groups[g].begin = static_cast<Index>(g) * size;
    groups[g].end = std::min(rows, groups[g].begin + size);
  }
  for (const Piece& piece : pieces) {
    if (piece.lane_begin >= piece.lane_end || piece.step_begin >= piece.step_end) continue;
    for (Index g = piece.lane_begin / size; g * size < piece.lane_end; ++g) {
      RowGroup& group = groups[static_cast<std::size_t>(g)];
      group.pieces.push_back(piece);
      group.pairs += pairs_of(piece, group.begin, group.end);
    }
  }
  std::erase_if(groups, [](const RowGroup& group) { return group.pieces.empty(); });
  longest_first(groups);
  return groups;
}

std::vector<JoinedGroups> joined(std::span<const RowGroup> groups, Index most) {
  const auto same = [](const Piece& a, const Piece& b) {
    return a.lane_begin == b.lane_begin && a.lane_end == b.lane_end && a.step_begin == b.step_begin &&
           a.step_end == b.step_end && a.lo == b.lo && a.hi == b.hi;
  };
  const auto in_order = [](const RowGroup& group) {
    const auto overlap = [](const Piece& a, const Piece& b) { return a.step_end > b.step_begin; };
    return std::ranges::adjacent_find(group.pieces, overlap) == group.pieces.end();
  };
  std::vector<JoinedGroups> all;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const RowGroup& group = groups[g];
    if (!all.empty()) {
      JoinedGroups& last = all.back();
      if (group.begin == last.end && group.end - last.begin <= most && in_order(group) &&
          std::ranges::equal(group.pieces, groups[g - 1].pieces, same)) {
        last.end = group.end;
        last.pairs += group.pairs;
        ++last.count;
        continue;
      }
    }
    all.push_back({static_cast<Index>(g), 1, group.begin, group.end, group.pairs});
  }
  return all;
}

std::vector<Chunk> cut_chunks(std::span<Piece> pieces, Index steps) {
  std::map<Index, Index> ends;  // of the steps from each first one on
  for (const Piece& piece : pieces) {
    Index& end = ends.try_emplace(piece.step_begin, piece.step_end).first->second;
    end = std::max(end, piece.step_end);
  }
  std::vector<Chunk> chunks;
  std::map<Index, Index> first;
  for (const auto& [begin, end] : ends) {
    first[begin] = static_cast<Index>(chunks.size());
    for (Index from = begin; from < end; from += steps) chunks.push_back({from, std::min(steps, end - from)});
  }
  for (Piece& piece : pieces) piece.chunk = first[piece.step_begin];
  return chunks;
}

std::vector<Piece> pieces_within(std::span<const Piece> pieces, Index steps, Range chunks) {
  std::vector<Piece> parts;
  for (const Piece& piece : pieces) {
    const Index count = ceil_div(piece.step_end - piece.step_begin, steps);
    const Range met = overlap(Range{piece.chunk, piece.chunk + count}, chunks);
    if (met.empty()) continue;
    const Index skipped = (met.begin - piece.chunk) * steps;
    Piece part = piece;
    part.step_begin += skipped;
    part.step_at += skipped * piece.stride;
    part.step_end = std::min(piece.step_end, part.step_begin + met.count() * steps);
    part.chunk = met.begin - chunks.begin;
    // lanes that see some of these steps
    part.lane_begin = std::max(piece.lane_begin, part.step_begin - piece.hi);
    part.lane_end = std::min(piece.lane_end, part.step_end - piece.lo);
    if (part.lane_begin >= part.lane_end) continue;
    part.lane_at += (part.lane_begin - piece.lane_begin) * piece.stride;
    parts.push_back(part);
  }
  return parts;
}

std::span<const Chunk> Rounds::chunks_of(std::size_t round) const {
  const std::size_t first = std::min(chunks.size(), round * static_cast<std::size_t>(at_once));
  return std::span(chunks).subspan(first, std::min(static_cast<std::size_t>(at_once), chunks.size() - first));
}

Rounds cut_rounds(std::vector<Piece> pieces, Index steps, Index room) {
  Rounds rounds;
  if (steps == 0) {
    rounds.pieces.push_back(std::move(pieces));
    return rounds;
  }
  rounds.chunks = cut_chunks(pieces, steps);
  const auto count = static_cast<Index>(rounds.chunks.size());
  Index widest = 1;
  for (const Piece& piece : pieces)
    widest = std::max(widest, std::min(piece.step_end - piece.step_begin, piece.hi - piece.lo + 1));
  constexpr Index times = 16;
  rounds.at_once = std::min({count, room, times * ceil_div(widest, steps)});
  for (Index first = 0; first < count; first += rounds.at_once)
    rounds.pieces.push_back(pieces_within(pieces, steps, {first, std::min(first + rounds.at_once, count)}));
  return rounds;
}

std::vector<std::size_t> last_rounds(const Rounds& rounds, Index rows, Index size) {
  std::vector<std::size_t> last(static_cast<std::size_t>(ceil_div(rows, size)), rounds.pieces.size());
  for (std::size_t round = 0; round < rounds.pieces.size(); ++round)
    for (const Piece& piece : rounds.pieces[round])
      for (Index g = piece.lane_begin / size; g * size < piece.lane_end; ++g) last[static_cast<std::size_t>(g)] = round;
  return last;
}

std::vector<RowGroup> group_queries(std::span<const Tile> tiles, Index size, Index block_tokens) {
  std::map<Index, RowGroup> owners;
  Index stride = 1;  // tiles of a single row may come with another stride than the rest
  for (const Tile& tile : tiles) stride = std::max(stride, tile.stride);
  // positions per owner: a whole number of the map's blocks, holding at least `size` rows
  const Index wanted = size * stride;
  const Index share = block_tokens > 0 ? ceil_div(wanted, block_tokens) * block_tokens : wanted;
  for (const Tile& tile : tiles) {
    if (tile.q.empty() || tile.k.empty()) continue;
    for (Index i = 0; i < tile.q.count();) {
      const Index at = tile.q_at + i * tile.stride, owner = at / share;
      const Index in_share = ceil_div((owner + 1) * share - at, tile.stride);
      const Index next = std::min({tile.q.count(), i + size, i + in_share});
      Piece piece = queries_in_lanes(tile);
      piece.lane_begin = tile.q.begin + i;
      piece.lane_end = tile.q.begin + next;
      piece.lane_at = at;
      RowGroup& group = owners[owner];
      group.pairs += pairs_of(piece, piece.lane_begin, piece.lane_end);
      group.pieces.push_back(piece);
      i = next;
    }
  }
  std::vector<RowGroup> groups;
  for (auto& [owner, group] : owners) groups.push_back(std::move(group));
  longest_first(groups);
  return groups;
}

}  // namespace annulus::cpu

#include "kernel/cpu/fold.hpp"

#include <algorithm>
#include <cstring>

#include "annulus/kernel/partial.hpp"

namespace annulus::cpu {
namespace {

// Queries [q) that all see keys [k), counted in the rows of the call.
struct Rectangle {
  Range q, k;
};

// Shorter shares of keys cost more in rows that are loaded, stored and merged than they gain.
constexpr Index least_keys_of_share = 1024;
// As many pieces of work should there be.
constexpr Index wanted_items = 64;

Index round_up(Index n, Index to) { return ceil_div(n, to) * to; }

void add(std::vector<Rectangle>& to, Range q, Range k) {
  if (q.empty() || k.empty()) return;
  if (!to.empty() && to.back().k == k && to.back().q.end == q.begin) to.back().q.end = q.end;
  else to.push_back({q, k});
}

// The tile as rectangles: the keys that all its queries see, and what each sees before and behind them.
void add_rectangles(const Tile& tile, std::vector<Rectangle>& to) {
  const Index last = tile.q.count() - 1, k = tile.k.begin;
  Range all = overlap(tile.keys_of(0), tile.keys_of(last));
  if (all.empty()) all = {tile.k.count(), tile.k.count()};  // all keys are before them
  add(to, tile.q, {k + all.begin, k + all.end});
  if (tile.full()) return;
  for (Index i = 0; i <= last; ++i) {
    const Range seen = tile.keys_of(i), row{tile.q.begin + i, tile.q.begin + i + 1};
    add(to, row, {k + seen.begin, k + std::min(seen.end, all.begin)});
    add(to, row, {k + std::max(seen.begin, all.end), k + seen.end});
  }
}

}  // namespace

std::optional<Folding> fold(std::span<const Tile> tiles, const FewQueries& of) {
  if (of.queries >= of.lanes) return std::nullopt;
  Folding folding;
  folding.members = of.members;
  folding.rows = round_up(of.queries * of.members, of.folded_lanes);
  std::vector<Rectangle> rectangles;
  Index plain = 0, folded = 0, longest = 0;
  for (const Tile& tile : tiles) {
    if (tile.q.empty() || tile.k.empty()) continue;
    add_rectangles(tile, rectangles);
    plain += of.members * of.lanes * tile.k.count();
  }
  // lanes of a piece; of all queries also those without a row, so that no lane needs a test
  const auto lanes_of = [&](const Rectangle& r) {
    return r.q.count() == of.queries ? Range{0, folding.rows} : Range{r.q.begin * of.members, r.q.end * of.members};
  };
  for (const Rectangle& r : rectangles) {
    const Range lanes = lanes_of(r);
    const Index begin = lanes.begin / of.folded_lanes * of.folded_lanes;
    folded += (round_up(lanes.end, of.folded_lanes) - begin) * r.k.count();
    longest = std::max(longest, r.k.count());
  }
  if (folded > plain) return std::nullopt;
  if (folding.rows <= of.folded_lanes) folding.heads_together = std::min(of.heads_together, of.kv_heads);
  const Index items_of_share = ceil_div(of.kv_heads, folding.heads_together);
  folding.shares = std::clamp<Index>(longest / least_keys_of_share, 1, ceil_div(wanted_items, items_of_share));
  for (const Rectangle& r : rectangles) {
    const Index keys = std::max(least_keys_of_share, ceil_div(r.k.count(), folding.shares));
    Index share = 0;
    for (Index at = r.k.begin; at < r.k.end; at += keys, ++share) {
      const Range lanes = lanes_of(r);
      folding.pieces.push_back({.lane_begin = share * folding.rows + lanes.begin,
                                .lane_end = share * folding.rows + lanes.end,
                                .step_begin = at,
                                .step_end = std::min(at + keys, r.k.end),
                                .lo = -far,
                                .hi = far,
                                .lane_at = 0,
                                .step_at = 0,
                                .stride = 1});
    }
  }
  return folding;
}

Index Heads::most_sharing(Index kv_heads) const {
  Index most = 1;
  for (Index g = 0; g < kv_heads; ++g) most = std::max(most, sharing(g).count());
  return most;
}

Index Folding::pairs() const {
  Index pairs = 0;
  for (const Piece& piece : pieces) pairs += (piece.lane_end - piece.lane_begin) * (piece.step_end - piece.step_begin);
  return pairs;
}

FoldedRows::FoldedRows(const Folding& folding, const Problem& problem, const Heads& heads, const Rows& q,
                       Scratch& memory)
    : folding_(folding), heads_(heads), queries_(q.tokens) {
  const Index rows = folding.shares * folding.rows, kv_heads = problem.kv_heads;
  memory.grow(rows * kv_heads * (problem.channels + problem.value_channels + 2));
  float* at = memory.data();
  const auto take = [&](DType type, Index channels) {
    const Rows all = dense_rows(at, type, rows, kv_heads, channels);
    at += rows * kv_heads * channels;
    return all;
  };
  q_ = take(problem.type, problem.channels);
  partial_ = {take(DType::f32, problem.value_channels), take(DType::f32, 1), take(DType::f32, 1)};
  reset_scores(partial_);
  for (Index share = 0; share < folding.shares; ++share)  // lanes without a row
    clear(q_.slice(share * folding.rows + q.tokens * folding.members, (share + 1) * folding.rows));
  for (Index g = 0; g < kv_heads; ++g)
    if (heads.sharing(g).count() < folding.members) clear(q_.take_heads(g, g + 1));
  const auto bytes = static_cast<std::size_t>(q.take_heads(0, 1).row_bytes());
  for (Index h = 0; h < q.heads; ++h) {
    const Index g = heads.kv_head(h), member = h - heads.sharing(g).begin;
    const Rows from = q.take_heads(h, h + 1), to = q_.take_heads(g, g + 1);
    for (Index share = 0; share < folding.shares; ++share)
      for (Index i = 0; i < q.tokens; ++i)
        std::memcpy(to.at<std::byte>(share * folding.rows + i * folding.members + member), from.at<std::byte>(i),
                    bytes);
  }
}

void FoldedRows::merge(const Partial& into) const {
  for (Index h = 0; h < into.out.heads; ++h) {
    const Index g = heads_.kv_head(h), member = h - heads_.sharing(g).begin;
    for (Index share = 0; share < folding_.shares; ++share) {
      const auto here = [&](const Rows& all) {
        Rows rows = all.take_heads(g, g + 1).slice(share * folding_.rows + member, all.tokens);
        rows.pitch *= folding_.members;
        rows.tokens = queries_;
        return rows;
      };
      const auto there = [&](const Rows& all) { return all.take_heads(h, h + 1).slice(0, queries_); };
      annulus::merge({here(partial_.out), here(partial_.top), here(partial_.sum)},
                     {there(into.out), there(into.top), there(into.sum)});
    }
  }
}

}  // namespace annulus::cpu

#include "annulus/plan/itinerary.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

// a modulo n, for -n <= a < 2 n.
int modulo(int a, int n) { return a < 0 ? a + n : a >= n ? a - n : a; }

// The divisor of `ranks` nearest to `wish` (in ratio) among those strictly between 1 and ranks; 1 when ranks is prime.
int inner_divisor(int ranks, int wish) {
  int best = 1;
  const auto distance = [&](int d) { return d > wish ? static_cast<double>(d) / wish : static_cast<double>(wish) / d; };
  for (int d = 2; d < ranks; ++d)
    if (ranks % d == 0 && (best == 1 || distance(d) < distance(best))) best = d;
  return best;
}

Grid ring(const Request& r) { return {1, r.ranks, 1}; }

Grid ulysses(const Request& r) { return {r.ranks, 1, 1}; }

Grid double_ring(const Request& r) {
  const int wish = r.ranks_per_node > 1 && r.ranks_per_node < r.ranks ? r.ranks_per_node : 4;
  const int inner = inner_divisor(r.ranks, wish);
  require(inner > 1, "double-ring needs a number of ranks with a divisor between 1 and itself: ranks = ", r.ranks);
  return {1, inner, r.ranks / inner};
}

Grid hybrid(const Request& r) {
  // heads inside the node, the ring between nodes; no more head shares than K/V heads, so that none is replicated
  const int node = r.ranks_per_node > 1 && r.ranks_per_node < r.ranks ? r.ranks_per_node : 2;
  const int wish = static_cast<int>(std::clamp<Index>(r.kv_heads, 2, std::max(2, node)));
  const int heads = inner_divisor(r.ranks, wish);
  require(heads > 1, "hybrid needs a number of ranks with a divisor between 1 and itself: ranks = ", r.ranks);
  require(heads <= r.query_heads,
          "hybrid needs at least as many query heads as head shares: query heads = ", r.query_heads,
          ", head shares = ", heads);
  return {heads, r.ranks / heads, 1};
}

Grid all_gather(const Request& r) {  // of so many blocks at once that memory stays bounded
  constexpr int blocks = 8;
  const int inner = r.ranks <= blocks ? r.ranks : inner_divisor(r.ranks, blocks);
  return inner > 1 ? Grid{1, inner, r.ranks / inner, Travel::gather} : Grid{1, r.ranks, 1, Travel::gather};
}

Grid pass_q(const Request& r) { return {1, r.ranks, 1, Travel::queries}; }

Grid tree(const Request& r) { return {1, r.ranks, 1, Travel::tree}; }

constexpr std::array<Strategy, 7> table{{
    {"ring", "K/V blocks travel once around all ranks", Travel::keys, ring},
    {"double-ring", "rings inside nodes, then a jump between nodes", Travel::keys, double_ring},
    {"ulysses", "one all-to-all trades tokens for heads, no ring", Travel::keys, ulysses},
    {"hybrid", "heads split inside a seat, a ring between seats", Travel::keys, hybrid},
    {"all-gather", "K/V of many ranks at once, straight from their owners", Travel::gather, all_gather},
    {"pass-q", "queries travel and K/V stay: few queries, many keys", Travel::queries, pass_q},
    {"tree", "all queries everywhere, results merged pairwise: very few queries", Travel::tree, tree},
}};

}  // namespace

Grid parse_grid(std::string_view text) {
  std::array<int, 3> sides{};
  std::size_t side = 0;
  const char* at = text.data();
  const char* end = at + text.size();
  bool sound = true;
  for (; side < 3 && sound; ++side) {
    const auto [stop, problem] = std::from_chars(at, end, sides[side]);
    sound = problem == std::errc{} && sides[side] >= 1 && (side == 2 ? stop == end : stop != end && *stop == 'x');
    at = stop == end ? stop : stop + 1;
  }
  require(sound, "a grid must be written HEADSxINNERxOUTER with numbers from 1, for example 2x4x1: it is '", text, "'");
  require(Index{sides[0]} * sides[1] <= (1 << 24) && Index{sides[0]} * sides[1] * sides[2] <= (1 << 24),
          "a grid must not have more than 2^24 ranks: it is '", text, "'");
  return {sides[0], sides[1], sides[2]};
}

std::string to_text(const Grid& grid) { return sentence(grid.heads, 'x', grid.inner, 'x', grid.outer); }

Rank visit(const Grid& grid, int step, Rank seat) {
  const int turn = step / grid.inner, hop = step % grid.inner;
  const int ring = modulo(seat / grid.inner - turn, grid.outer), place = modulo(seat % grid.inner - hop, grid.inner);
  return ring * grid.inner + place;
}

Rank host(const Grid& grid, int step, Rank origin) {
  const int turn = step / grid.inner, hop = step % grid.inner;
  const int ring = modulo(origin / grid.inner + turn, grid.outer), place = modulo(origin % grid.inner + hop, grid.inner);
  return ring * grid.inner + place;
}

int step_of(const Grid& grid, Rank seat, Rank origin) {
  const int turn = modulo(seat / grid.inner - origin / grid.inner, grid.outer);
  return turn * grid.inner + modulo(seat % grid.inner - origin % grid.inner, grid.inner);
}

std::span<const Strategy> strategies() { return table; }

const Strategy& find_strategy(std::string_view name) {
  const auto found = std::ranges::find(table, name, &Strategy::name);
  require(found != table.end(), "strategy must be auto, ring, double-ring, ulysses, hybrid, all-gather, pass-q or tree: it is '", name, "'");
  return *found;
}

std::string_view strategy_of(const Grid& grid) {
  if (grid.travel != Travel::keys) return std::ranges::find(table, grid.travel, &Strategy::travel)->name;
  if (grid.heads > 1) return grid.seats() > 1 ? "hybrid" : "ulysses";
  return grid.outer > 1 && grid.inner > 1 ? "double-ring" : "ring";
}

}  // namespace annulus

#include "input/tokenizer/merges.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <unordered_map>

namespace annulus {
namespace {

// About 32 bits for each rule, so that few pairs are taken for others; never more than fit a cache.
unsigned joined_logarithm(std::size_t rules) {
  return static_cast<unsigned>(std::clamp(std::bit_width(32 * rules), std::size_t{10}, std::size_t{22}));
}

constexpr std::uint32_t no_rank = ~std::uint32_t{0};
constexpr std::size_t few = 48;  // up to here looking at all of them is faster than a heap

// The units that tokens may begin with, or end with: one, but for a token that is a unit and made by a rule, too.
class Edges {
 public:
  std::span<const std::uint32_t> of(std::uint32_t id) const {
    const auto found = units_.find(id);
    return found == units_.end() ? std::span<const std::uint32_t>() : found->second;
  }
  // Returns whether one of the units is new.
  bool add(std::uint32_t id, std::span<const std::uint32_t> units) {
    bool is_new = false;
    for (const std::uint32_t unit : std::vector(units.begin(), units.end())) {
      std::vector<std::uint32_t>& its = units_[id];
      if (std::ranges::find(its, unit) != its.end()) continue;
      its.push_back(unit);
      is_new = true;
      most_ = std::max(most_, its.size());
    }
    return is_new;
  }
  std::size_t most() const { return most_; }

 private:
  std::unordered_map<std::uint32_t, std::vector<std::uint32_t>> units_;
  std::size_t most_ = 0;
};

}  // namespace

Merges::Merges(std::span<const Rule> rules, std::span<const std::uint32_t> units)
    : rules_(rules.size()),
      joined_shift_(64 - joined_logarithm(rules.size())),
      joined_((std::size_t{1} << joined_logarithm(rules.size())) / 64) {
  for (std::uint32_t rank = 0; const Rule& rule : rules) rules_.at(key(rule.left, rule.right)) = {rank++, rule.whole};
  find_joined(rules, units);
}

// A rule joins the last unit of its left with the first unit of its right token. Tokens are made of tokens, which rules
// may name in any order: as many passes as it takes, a few.
void Merges::find_joined(std::span<const Rule> rules, std::span<const std::uint32_t> units) {
  constexpr int most_passes = 64;
  constexpr std::size_t most_edges = 16;
  Edges firsts, lasts;
  for (const std::uint32_t unit : units) firsts.add(unit, {&unit, 1}), lasts.add(unit, {&unit, 1});
  bool changed = true;
  for (int pass = 0; changed; ++pass) {
    if (pass == most_passes || firsts.most() > most_edges || lasts.most() > most_edges)
      return joined_.assign(joined_.size(), ~std::uint64_t{0});  // not worth finding out: nowhere
    changed = false;
    for (const Rule& rule : rules) {
      if (firsts.of(rule.left).empty() || lasts.of(rule.right).empty()) continue;  // never met, as far as is known yet
      changed |= firsts.add(rule.whole, firsts.of(rule.left));
      changed |= lasts.add(rule.whole, lasts.of(rule.right));
    }
  }
  for (const Rule& rule : rules)
    for (const std::uint32_t left : lasts.of(rule.left))
      for (const std::uint32_t right : firsts.of(rule.right)) {
        const std::size_t bit = bit_of(left, right);
        joined_[bit / 64] |= std::uint64_t{1} << (bit % 64);
      }
}

void Merges::apply(std::vector<PieceToken>& tokens) const {
  if (tokens.size() <= few) apply_to_few(tokens);
  else apply_to_many(tokens);
}

void Merges::apply_to_few(std::vector<PieceToken>& tokens) const {
  std::array<Merged, few> next{};  // of a token with the one behind it
  const auto look_up = [&](std::size_t n) {
    const Merged* found = n + 1 < tokens.size() ? rules_.find(key(tokens[n].id, tokens[n + 1].id)) : nullptr;
    next[n] = found != nullptr ? *found : Merged{no_rank, 0};
  };
  for (std::size_t n = 0; n < tokens.size(); ++n) look_up(n);
  while (tokens.size() > 1) {
    const auto* const end = next.begin() + tokens.size();
    const auto* const best = std::min_element(next.cbegin(), end, [](Merged a, Merged b) { return a.rank < b.rank; });
    if (best->rank == no_rank) return;
    const auto at = static_cast<std::size_t>(best - next.cbegin());
    tokens[at] = {best->whole, tokens[at].begin, tokens[at + 1].end};
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    std::move(next.begin() + at + 2, next.begin() + tokens.size() + 1, next.begin() + at + 1);
    look_up(at);
    if (at > 0) look_up(at - 1);
  }
}

void Merges::apply_to_many(std::vector<PieceToken>& tokens) const {
  constexpr std::uint32_t none = ~std::uint32_t{0};
  struct Neighbours {
    std::uint32_t before, behind;
  };
  const auto count = static_cast<std::uint32_t>(tokens.size());
  std::vector<Neighbours> around(count);
  std::vector<std::uint64_t> heap;  // rank and place of the left one; some are out of date
  const auto rule_at = [&](std::uint32_t at) -> const Merged* {
    if (tokens[at].id == none || around[at].behind == none) return nullptr;
    return rules_.find(key(tokens[at].id, tokens[around[at].behind].id));
  };
  const auto entry = [](std::uint32_t rank, std::uint32_t at) { return std::uint64_t{rank} << 32U | at; };
  for (std::uint32_t n = 0; n < count; ++n) around[n] = {n == 0 ? none : n - 1, n + 1 == count ? none : n + 1};
  for (std::uint32_t n = 0; n < count; ++n)
    if (const Merged* rule = rule_at(n)) heap.push_back(entry(rule->rank, n));
  std::ranges::make_heap(heap, std::greater<>());
  const auto consider = [&](std::uint32_t at) {
    if (const Merged* rule = rule_at(at)) {
      heap.push_back(entry(rule->rank, at));
      std::ranges::push_heap(heap, std::greater<>());
    }
  };
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, std::greater<>());
    const auto rank = static_cast<std::uint32_t>(heap.back() >> 32U), at = static_cast<std::uint32_t>(heap.back());
    heap.pop_back();
    const Merged* rule = rule_at(at);
    if (rule == nullptr || rule->rank != rank) continue;
    const std::uint32_t right = around[at].behind, behind = around[right].behind;
    tokens[at] = {rule->whole, tokens[at].begin, tokens[right].end};
    tokens[right].id = none;  // gone
    around[at].behind = behind;
    if (behind != none) around[behind].before = at;
    if (around[at].before != none) consider(around[at].before);
    consider(at);
  }
  std::erase_if(tokens, [](const PieceToken& token) { return token.id == none; });
}

}  // namespace annulus

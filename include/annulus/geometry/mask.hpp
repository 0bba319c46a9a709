#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/geometry/range.hpp"

namespace annulus {

/// How many queries and keys there are, and where packed documents begin (offsets: first 0, last = tokens; empty: one
/// document).
struct Extent {
  Index queries = 0, keys = 0;
  std::vector<Index> documents = {};
};

/// Who may see whom: disjoint regions, each a rectangle of queries x keys cut by a diagonal band. When lengths differ
/// the ends are aligned: query i stands at position i + (keys - queries) in every term, so `causal` is k <= i + (keys -
/// queries). Arbitrary dense boolean masks are outside this algebra.
class Mask {
 public:
  /// Terms joined by '+':  full, causal, window:B,A  (-B <= k - q <= A; window:B means B,B), sink:S, global:LIST,
  /// prefix:P, documents. A query sees a key when causal and documents allow it and the key is in the window, or is one
  /// of the first S, or either of the two is global; and always when both are among the first P. Throws Error (usage)
  /// that names the term, the value and the rule.
  static Mask parse(std::string_view terms, const Extent& extent);
  /// Regions as given; they must be disjoint (tests check it, the constructor does not).
  static Mask of(std::vector<Region> regions, Index queries, Index keys, std::string name);

  const std::vector<Region>& regions() const { return regions_; }
  /// The regions that could touch these queries: a slice of regions(), which are sorted by q.begin.
  std::span<const Region> near(Range queries) const;
  Index queries() const { return queries_; }
  Index keys() const { return keys_; }
  /// keys - queries: the position of query 0.
  Index query_shift() const { return keys_ - queries_; }
  const std::string& name() const { return name_; }

  bool visible(Index query, Index key) const;
  /// How many keys a query sees.
  Index seen_by(Index query) const;
  /// All visible pairs, in closed form.
  Index pairs() const;

 private:
  std::vector<Region> regions_;
  std::vector<Index> reach_;  // reach_[r]: the largest q.end among regions_[0..r]
  Index queries_ = 0, keys_ = 0;
  std::string name_;
};

/// The names parse() knows, with one line each, for --help.
struct MaskTerm {
  std::string_view usage, meaning;
};
std::span<const MaskTerm> mask_terms();

}  // namespace annulus

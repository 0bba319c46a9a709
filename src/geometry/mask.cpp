#include "annulus/geometry/mask.hpp"

#include <array>
#include <charconv>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"

namespace annulus {
namespace {

// What the terms of a mask say, before geometry.
struct Terms {
  bool causal = false, documents = false;
  std::optional<Band> window;
  Index sink = 0, prefix = 0;
  std::vector<Range> global;
};

using Reader = void (*)(std::string_view value, Terms&);

struct Row {
  std::string_view name;
  bool takes_value;
  MaskTerm help;
  Reader read;
};

constexpr std::array<Row, 7> rows{{
    {"full", false, {"full", "every query sees every key"}, [](std::string_view, Terms&) {}},
    {"causal", false, {"causal", "no key after the query"}, [](std::string_view, Terms& t) { t.causal = true; }},
    {"window",
     true,
     {"window:B,A", "keys with -B <= k - q <= A (window:B means B,B)"},
     [](std::string_view value, Terms& t) {
       const auto comma = value.find(',');
       const Index before = parse_count(value.substr(0, comma), -far);
       const Index after = comma == value.npos ? before : parse_count(value.substr(comma + 1), -far);
       require(-before <= after, "window:B,A must leave a key to see, -B <= A: B = ", before, ", A = ", after);
       t.window = Band{-before, after};
     }},
    {"sink",
     true,
     {"sink:S", "the first S keys stay visible whatever the window"},
     [](std::string_view value, Terms& t) { t.sink = parse_count(value); }},
    {"global",
     true,
     {"global:LIST", "tokens that see all and are seen by all"},
     [](std::string_view value, Terms& t) { t.global = parse_list(value); }},
    {"prefix",
     true,
     {"prefix:P", "the first P tokens see each other both ways"},
     [](std::string_view value, Terms& t) { t.prefix = parse_count(value); }},
    {"documents",
     false,
     {"documents", "tokens see their own document only"},
     [](std::string_view, Terms& t) { t.documents = true; }},
}};

Terms read_terms(std::string_view text) {
  Terms terms;
  std::array<bool, rows.size()> given{};
  for (std::string_view rest = text; !rest.empty() || rest.data() == text.data();) {
    const auto plus = rest.find('+');
    const std::string_view term = rest.substr(0, plus);
    const auto colon = term.find(':');
    const std::string_view name = term.substr(0, colon);
    const auto row = std::ranges::find(rows, name, &Row::name);
    require(row != rows.end(), "mask '", text, "' has an unknown term '", name,
            "'; the terms are full, causal, window:B,A, sink:S, global:LIST, prefix:P and documents, joined by '+'");
    require(row->takes_value == (colon != term.npos), "mask term '", term, "' must be written ", row->help.usage);
    bool& before = given[static_cast<std::size_t>(row - rows.begin())];
    require(!before, "mask '", text, "' has the term ", name, " twice");
    before = true;
    try {
      row->read(colon == term.npos ? std::string_view{} : term.substr(colon + 1), terms);
    } catch (const Error& e) {
      throw Error(Failure::usage, sentence("mask term '", term, "': ", e.what()), e.where());
    }
    if (plus == rest.npos) break;
    rest = rest.substr(plus + 1);
    require(!rest.empty(), "mask '", text, "' ends with '+'");
  }
  return terms;
}

void check(const Terms& terms, const Extent& extent) {
  require(extent.queries >= 0 && extent.keys >= 0, "lengths must not be negative: queries = ", extent.queries,
          ", keys = ", extent.keys);
  constexpr Index longest = Index{1} << 31;  // pairs are counted in 64 bits
  require(extent.queries <= longest && extent.keys <= longest,
          "a mask must not have more than 2^31 queries or keys: queries = ", extent.queries, ", keys = ", extent.keys);
  const bool square = extent.queries == extent.keys;
  require(square || terms.prefix == 0, "mask term prefix needs as many queries as keys: queries = ", extent.queries,
          ", keys = ", extent.keys);
  require(square || terms.global.empty(), "mask term global needs as many queries as keys: queries = ", extent.queries,
          ", keys = ", extent.keys);
  require(square || !terms.documents, "mask term documents needs as many queries as keys: queries = ", extent.queries,
          ", keys = ", extent.keys);
  require(terms.global.empty() || terms.global.back().end <= extent.keys, "mask term global names token ",
          terms.global.empty() ? 0 : terms.global.back().end - 1, ", but there are only ", extent.keys, " tokens");
  require(!terms.documents || !extent.documents.empty(),
          "mask term documents needs document offsets, and the input has none");
  if (extent.documents.empty()) return;
  require(extent.documents.front() == 0 && extent.documents.back() == extent.keys,
          "document offsets must start at 0 and end at the number of tokens: they run from ", extent.documents.front(),
          " to ", extent.documents.back(), " over ", extent.keys, " tokens");
  for (std::size_t d = 1; d < extent.documents.size(); ++d)
    require(extent.documents[d - 1] <= extent.documents[d], "document offsets must not decrease: offset ", d - 1,
            " is ", extent.documents[d - 1], ", offset ", d, " is ", extent.documents[d]);
}

// The parts of `whole` inside and outside sorted ranges.
struct Split {
  std::vector<Range> in, out;
};
Split split(Range whole, std::span<const Range> ranges) {
  Split s;
  for (Range r : ranges)
    if (const Range inside = overlap(whole, r); !inside.empty()) s.in.push_back(inside);
  if (!whole.empty()) s.out = without(std::array{whole}, s.in);
  return s;
}

// Disjoint regions of one rectangle in which causal and window hold:
//
//            sink/global keys | the other keys
//   global q |     wide       |     wide          wide: the causal term alone
//   other q  |     wide       |    narrow         narrow: causal and window
void add_rectangle(Range q, Range k, const Terms& terms, Index shift, std::vector<Region>& out) {
  if (q.empty() || k.empty()) return;
  const Band wide = terms.causal ? Band{-far, shift} : Band{};
  if (!terms.window) {
    out.push_back({q, k, wide});
    return;
  }
  const Band narrow = overlap(wide, Band{terms.window->lo <= -far ? -far : terms.window->lo + shift,
                                         terms.window->hi >= far ? far : terms.window->hi + shift});
  std::vector<Range> kept = terms.global;
  kept.push_back({0, terms.sink});
  const Split keys = split(k, united(kept)), queries = split(q, terms.global);
  for (Range special : keys.in) out.push_back({q, special, wide});
  for (Range ordinary : keys.out) {
    for (Range special : queries.in) out.push_back({special, ordinary, wide});
    for (Range other : queries.out)
      if (narrow.lo <= narrow.hi) out.push_back({other, ordinary, narrow});
  }
}

}  // namespace

Mask Mask::parse(std::string_view text, const Extent& extent) {
  const Terms terms = read_terms(text);
  check(terms, extent);
  const Index shift = extent.keys - extent.queries;
  std::vector<Region> regions;
  const Range prefix{0, std::min(terms.prefix, extent.keys)};
  if (!prefix.empty()) regions.push_back({prefix, prefix, {}});
  const auto outside_prefix = [&](Range q, Range k) {  // what the prefix square leaves of a rectangle
    const Range below{std::max(q.begin, prefix.end), q.end}, beside = overlap(q, prefix);
    add_rectangle(below, k, terms, shift, regions);
    add_rectangle(beside, {std::max(k.begin, prefix.end), k.end}, terms, shift, regions);
  };
  if (terms.documents) {
    for (std::size_t d = 1; d < extent.documents.size(); ++d) {
      const Range document{extent.documents[d - 1], extent.documents[d]};
      if (!document.empty()) outside_prefix(document, document);
    }
  } else {
    outside_prefix({0, extent.queries}, {0, extent.keys});
  }
  return of(std::move(regions), extent.queries, extent.keys, std::string(text));
}

Mask Mask::of(std::vector<Region> regions, Index queries, Index keys, std::string name) {
  Mask mask;
  std::erase_if(regions, [](const Region& r) { return r.q.empty() || r.k.empty() || r.band.lo > r.band.hi; });
  std::ranges::stable_sort(regions, {}, [](const Region& r) { return r.q.begin; });
  Index reach = 0;
  for (const Region& r : regions) mask.reach_.push_back(reach = std::max(reach, r.q.end));
  mask.regions_ = std::move(regions);
  mask.queries_ = queries;
  mask.keys_ = keys;
  mask.name_ = std::move(name);
  return mask;
}

std::span<const Region> Mask::near(Range q) const {
  const auto first = std::ranges::upper_bound(reach_, q.begin) - reach_.begin();
  const auto last = std::ranges::lower_bound(regions_, q.end, {}, [](const Region& r) { return r.q.begin; });
  const auto count = std::max<std::ptrdiff_t>(0, last - regions_.begin() - first);
  return std::span(regions_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
}

bool Mask::visible(Index query, Index key) const {
  return std::ranges::any_of(near({query, query + 1}), [&](const Region& r) {
    return r.q.contains(query) && r.k.contains(key) && r.band.contains(key - query);
  });
}

Index Mask::seen_by(Index query) const {
  Index total = 0;
  for (const Region& r : near({query, query + 1})) {
    if (!r.q.contains(query)) continue;
    const Range band{r.band.lo <= -far ? -far : query + r.band.lo, r.band.hi >= far ? far : query + r.band.hi + 1};
    total += overlap(r.k, band).count();
  }
  return total;
}

Index Mask::pairs() const {
  Index total = 0;
  for (const Region& r : regions_) {
    const Index gap = r.k.begin - r.q.begin;
    const Tile tile{r.q, r.k, {r.band.lo <= -far ? -far : r.band.lo - gap, r.band.hi >= far ? far : r.band.hi - gap}};
    total += tile.pairs();
  }
  return total;
}

std::span<const MaskTerm> mask_terms() {
  static const auto terms = [] {
    std::array<MaskTerm, rows.size()> out;
    std::ranges::transform(rows, out.begin(), &Row::help);
    return out;
  }();
  return terms;
}

}  // namespace annulus

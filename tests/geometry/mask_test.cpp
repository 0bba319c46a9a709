#include "annulus/geometry/mask.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <set>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

// What the terms promise to users, pair by pair, without regions or bands.
struct Promise {
  Index queries = 0, keys = 0;
  bool causal = false;
  std::optional<std::pair<Index, Index>> window;  // keys before, keys after
  Index sink = 0, prefix = 0;
  std::set<Index> global;
  std::optional<std::vector<Index>> documents;

  Index document_of(Index token) const {
    Index d = 0;
    while ((*documents)[static_cast<std::size_t>(d + 1)] <= token) ++d;
    return d;
  }
  bool visible(Index query, Index key) const {
    if (query < prefix && key < prefix) return true;  // whatever the other terms say
    const Index position = query + keys - queries;    // the ends are aligned
    if (causal && key > position) return false;       // no key after the query
    if (documents && document_of(query) != document_of(key)) return false;
    if (!window || key < sink || global.contains(query) || global.contains(key)) return true;
    return position - window->first <= key && key <= position + window->second;
  }
};

struct Case {
  std::string terms;
  Extent extent;
  Promise promise;
};

// A sum of the terms whose bits are set, with random values, in random order.
Case random_case(unsigned set, std::mt19937_64& random) {
  const auto up_to = [&](Index n) { return static_cast<Index>(random() % static_cast<std::uint64_t>(n + 1)); };
  const bool square = (set & 0b111000U) != 0 || up_to(1) == 0;  // prefix, global and documents need equal lengths
  Case c;
  Promise& p = c.promise;
  p.queries = up_to(24);
  p.keys = square ? p.queries : up_to(24);
  c.extent = {p.queries, p.keys, {}};
  std::vector<std::string> terms;
  if ((set & 1U) != 0) {
    p.causal = true;
    terms.emplace_back("causal");
  }
  if ((set & 2U) != 0) {
    const Index before = up_to(9) - 2, after = std::max(-before, up_to(9) - 2);  // negative bounds look past the query
    p.window = {before, after};
    terms.push_back(sentence("window:", before, ",", after));
  }
  if ((set & 4U) != 0) {
    p.sink = up_to(6);
    terms.push_back(sentence("sink:", p.sink));
  }
  if ((set & 8U) != 0) {
    p.prefix = up_to(p.queries + 3);
    terms.push_back(sentence("prefix:", p.prefix));
  }
  if ((set & 16U) != 0 && p.queries > 0) {
    std::string list;
    for (Index i = up_to(3); i >= 0; --i) {
      const Index first = up_to(p.queries - 1), last = std::min(p.queries - 1, first + up_to(2));
      list += sentence(list.empty() ? "" : ",", first, "-", last);
      for (Index g = first; g <= last; ++g) p.global.insert(g);
    }
    terms.push_back("global:" + list);
  }
  if ((set & 32U) != 0) {
    c.extent.documents = {0};
    while (c.extent.documents.back() < p.queries)
      c.extent.documents.push_back(std::min(p.queries, c.extent.documents.back() + up_to(9)));  // empty ones too
    p.documents = c.extent.documents;
    terms.emplace_back("documents");
  }
  if (terms.empty() || up_to(3) == 0) terms.emplace_back("full");
  std::ranges::shuffle(terms, random);
  for (const std::string& term : terms) c.terms += (c.terms.empty() ? "" : "+") + term;
  return c;
}

TEST(Mask, EverySumOfTermsShowsExactlyWhatTheTermsPromise) {
  constexpr std::uint64_t seed = 20261121;
  std::mt19937_64 random(seed);
  for (unsigned set = 0; set < 64; ++set)
    for (int trial = 0; trial < 12; ++trial) {
      const Case c = random_case(set, random);
      const Promise& p = c.promise;
      SCOPED_TRACE(sentence("seed ", seed, ", ", c.terms, " over ", p.queries, " queries and ", p.keys, " keys"));
      const Mask mask = Mask::parse(c.terms, c.extent);
      ASSERT_EQ(mask.name(), c.terms);
      ASSERT_EQ(mask.query_shift(), p.keys - p.queries);
      Index total = 0;
      for (Index i = 0; i < p.queries; ++i) {
        Index seen = 0;
        for (Index j = 0; j < p.keys; ++j) {
          const bool visible = p.visible(i, j);
          seen += visible ? 1 : 0;
          ASSERT_EQ(mask.visible(i, j), visible) << "pair " << i << ", " << j;
          const auto holders = std::ranges::count_if(mask.regions(), [&](const Region& r) {
            return r.q.contains(i) && r.k.contains(j) && r.band.contains(j - i);
          });
          ASSERT_EQ(holders, visible ? 1 : 0) << "regions must be disjoint: pair " << i << ", " << j;
        }
        ASSERT_EQ(mask.seen_by(i), seen) << "query " << i;
        total += seen;
      }
      ASSERT_EQ(mask.pairs(), total);
    }
}

TEST(Mask, NearIsASliceThatHoldsEveryRegionTheQueriesTouch) {
  constexpr std::uint64_t seed = 5;
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 300; ++trial) {
    const Case c = random_case(static_cast<unsigned>(random() % 64), random);
    const Mask mask = Mask::parse(c.terms, c.extent);
    const Index begin = static_cast<Index>(random() % 25), end = begin + static_cast<Index>(random() % 25);
    const auto near = mask.near({begin, end});
    SCOPED_TRACE(sentence("seed ", seed, ", ", c.terms, ", queries ", begin, " to ", end));
    ASSERT_TRUE(std::ranges::is_sorted(mask.regions(), {}, [](const Region& r) { return r.q.begin; }));
    for (const Region& r : mask.regions()) {
      const bool listed = !near.empty() && &r >= near.data() && &r < near.data() + near.size();
      if (!overlap(r.q, {begin, end}).empty()) {
        ASSERT_TRUE(listed) << "region of queries " << r.q.begin << " to " << r.q.end;
      }
    }
  }
}

// The sliding window that libraries put off by one: both ends are included, and distances are counted key minus query.
TEST(Mask, AWindowIsATableOfDistancesWithBothEndsIncluded) {
  constexpr Index n = 13;
  for (Index before = 0; before < 5; ++before)
    for (Index after = 0; after < 5; ++after) {
      const Mask mask = Mask::parse(sentence("window:", before, ",", after), {n, n});
      const Mask causal = Mask::parse(sentence("causal+window:", before, ",", after), {n, n});
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < n; ++j) {
          const Index distance = std::abs(i - j), reach = j <= i ? before : after;
          EXPECT_EQ(mask.visible(i, j), distance <= reach) << before << "," << after << " pair " << i << ", " << j;
          EXPECT_EQ(causal.visible(i, j), j <= i && distance <= before) << before << " pair " << i << ", " << j;
        }
      EXPECT_EQ(mask.seen_by(6), before + after + 1);
    }
}

TEST(Mask, AWindowOfOneNumberLooksAsFarBothWays) {
  const char* picture[]{"##...", "###..", ".###.", "..###", "...##"};
  const Mask one = Mask::parse("window:1", {5, 5}), two = Mask::parse("window:1,1", {5, 5});
  for (Index i = 0; i < 5; ++i)
    for (Index j = 0; j < 5; ++j) {
      EXPECT_EQ(one.visible(i, j), picture[i][j] == '#');
      EXPECT_EQ(two.visible(i, j), picture[i][j] == '#');
    }
}

TEST(Mask, CausalAlignsTheEndsOfQueriesAndKeys) {
  const char* more_keys[]{"###..", "####.", "#####"};
  const char* more_queries[]{"..", "#.", "##"};
  const Mask wide = Mask::parse("causal", {3, 5}), tall = Mask::parse("causal", {3, 2});
  for (Index i = 0; i < 3; ++i) {
    for (Index j = 0; j < 5; ++j) EXPECT_EQ(wide.visible(i, j), more_keys[i][j] == '#') << i << ", " << j;
    for (Index j = 0; j < 2; ++j) EXPECT_EQ(tall.visible(i, j), more_queries[i][j] == '#') << i << ", " << j;
  }
}

TEST(Mask, FourMillionTokensHaveTheirPairsCountedExactly) {
  constexpr Index n = Index{4} << 20;
  EXPECT_EQ(Mask::parse("full", {n, n}).pairs(), n * n);
  EXPECT_EQ(Mask::parse("causal", {n, n}).pairs(), n * (n + 1) / 2);
  EXPECT_EQ(Mask::parse("window:4095,0", {n, n}).pairs(), 4096 * n - Index{4095} * 4096 / 2);
  EXPECT_EQ(Mask::parse("causal", {n, n}).seen_by(n - 1), n);
  constexpr Index edge = 46341;  // the first length whose square does not fit in 32 bits
  EXPECT_EQ(Mask::parse("full", {edge, edge}).pairs(), 2147488281);
}

struct Bad {
  const char *terms, *term, *value;
};

TEST(Mask, ABadTextGivesOneSentenceThatNamesTheTermAndTheValue) {
  const Extent square{5, 5, {0, 2, 5}};
  for (const Bad& bad : {Bad{"", "''", "the terms are"},
                         {"+", "''", "'+'"},
                         {"causal+", "causal+", "ends with '+'"},
                         {"causal++sink:1", "''", "causal++sink:1"},
                         {"casual", "'casual'", "causal"},
                         {" causal", "' causal'", "causal"},
                         {"Causal", "'Causal'", "causal"},
                         {"causal:3", "'causal:3'", "must be written causal"},
                         {"full:", "'full:'", "must be written full"},
                         {"documents:0", "'documents:0'", "must be written documents"},
                         {"window", "'window'", "window:B,A"},
                         {"window:", "'window:'", "''"},
                         {"window:x", "window", "'x'"},
                         {"window:1,", "'window:1,'", "''"},
                         {"window:1,2,3", "'window:1,2,3'", "'2,3'"},
                         {"window:1.5", "window", "'1.5'"},
                         {"window:-3,1", "window", "B = -3, A = 1"},
                         {"window:2,-3", "window", "B = 2, A = -3"},
                         {"window:nan", "window", "'nan'"},
                         {"sink", "'sink'", "sink:S"},
                         {"sink:-1", "'sink:-1'", "'-1'"},
                         {"sink:99999999999999999999", "sink", "99999999999999999999"},
                         {"sink:2000000Ti", "sink", "'2000000Ti'"},
                         {"prefix:two", "prefix", "'two'"},
                         {"prefix:-9223372036854775808", "prefix", "-9223372036854775808"},
                         {"global:", "'global:'", "''"},
                         {"global:3-1", "global", "'3-1'"},
                         {"global:1,,2", "global", "''"},
                         {"global:5", "global", "token 5"},
                         {"global:0-7", "global", "token 7"},
                         {"window:1+causal+window:2", "window", "twice"}}) {
    try {
      Mask::parse(bad.terms, square);
      ADD_FAILURE() << "'" << bad.terms << "' was taken for a mask";
    } catch (const Error& e) {
      const std::string said = e.what();
      EXPECT_EQ(e.failure(), Failure::usage);
      EXPECT_NE(said.find(bad.term), std::string::npos) << bad.terms << ": " << said;
      EXPECT_NE(said.find(bad.value), std::string::npos) << bad.terms << ": " << said;
      EXPECT_EQ(said.find('\n'), std::string::npos) << bad.terms << ": " << said;
    }
  }
}

TEST(Mask, TermsThatDoNotFitTheLengthsAreRefused) {
  for (const char* terms : {"prefix:1", "global:0", "documents"})
    EXPECT_THROW(Mask::parse(terms, Extent{3, 4, {0, 4}}), Error) << terms;
  EXPECT_THROW(Mask::parse("documents", Extent{3, 3, {}}), Error);
  EXPECT_THROW(Mask::parse("documents", Extent{3, 3, {1, 3}}), Error);
  EXPECT_THROW(Mask::parse("documents", Extent{3, 3, {0, 2}}), Error);
  EXPECT_THROW(Mask::parse("documents", Extent{3, 3, {0, 2, 1, 3}}), Error);
  EXPECT_THROW(Mask::parse("full", Extent{-1, 3, {}}), Error);
  // more pairs than 64 bits can count
  EXPECT_THROW(Mask::parse("full", Extent{Index{1} << 32, Index{1} << 32, {}}), Error);
  EXPECT_NO_THROW(Mask::parse("full", Extent{Index{1} << 31, Index{1} << 31, {}}));
}

}  // namespace
}  // namespace annulus

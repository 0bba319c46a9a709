#include "input/tokenizer/merges.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace annulus {
namespace {

using Ids = std::vector<std::uint32_t>;

std::uint32_t below(std::uint32_t end, std::mt19937& random) { return static_cast<std::uint32_t>(random() % end); }

// Rules over the units 0 .. units - 1, each of which makes a token of its own.
std::vector<Merges::Rule> random_rules(std::uint32_t units, std::uint32_t count, std::mt19937& random) {
  std::vector<Merges::Rule> rules;
  for (std::uint32_t n = 0; n < count; ++n)
    rules.push_back({below(units + n, random), below(units + n, random), units + n});
  std::shuffle(rules.begin(), rules.end(), random);
  return rules;
}

std::vector<PieceToken> tokens_of(const Ids& ids) {
  std::vector<PieceToken> tokens;
  for (std::uint32_t n = 0; n < ids.size(); ++n) tokens.push_back({ids[n], n, n + 1});
  return tokens;
}
Ids ids_of_tokens(const std::vector<PieceToken>& tokens) {
  Ids ids;
  for (const PieceToken& token : tokens) ids.push_back(token.id);
  return ids;
}
Ids applied(const Merges& merges, const Ids& ids) {
  std::vector<PieceToken> tokens = tokens_of(ids);
  merges.apply(tokens);
  return ids_of_tokens(tokens);
}

// By the definition: the earliest rule that fits anywhere, at its first place, again and again.
Ids naively_applied(const std::vector<Merges::Rule>& rules, Ids ids) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::pair<std::size_t, std::uint32_t>> known;
  for (std::size_t n = 0; n < rules.size(); ++n) known[{rules[n].left, rules[n].right}] = {n, rules[n].whole};
  while (true) {
    std::size_t best = rules.size(), at = 0;
    for (std::size_t n = 0; n + 1 < ids.size(); ++n) {
      const auto rule = known.find({ids[n], ids[n + 1]});
      if (rule != known.end() && rule->second.first < best) best = rule->second.first, at = n;
    }
    if (best == rules.size()) return ids;
    ids[at] = rules[best].whole;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

class RandomMerges : public testing::Test {
 protected:
  static constexpr unsigned seed = 20261129;
  static constexpr std::uint32_t units = 4;
  RandomMerges() : trace_(__FILE__, __LINE__, testing::Message() << "seed " << seed) {
    for (std::uint32_t n = 0; n < units; ++n) all_units_.push_back(n);
  }
  Ids random_text(std::size_t longest) {
    Ids ids(random_() % (longest + 1));
    for (std::uint32_t& id : ids) id = below(units, random_);
    return ids;
  }
  std::mt19937 random_{seed};
  Ids all_units_;

 private:
  testing::ScopedTrace trace_;
};

TEST_F(RandomMerges, ShortAndLongTextsAreMergedAsTheDefinitionSays) {
  for (int round = 0; round < 300; ++round) {
    const auto rules = random_rules(units, 1 + below(12, random_), random_);
    const Merges merges(rules, all_units_);
    for (const std::size_t longest : {std::size_t{10}, std::size_t{200}}) {
      const Ids text = random_text(longest);
      ASSERT_EQ(applied(merges, text), naively_applied(rules, text)) << "round " << round;
    }
  }
}

TEST_F(RandomMerges, ACutWhereTheySayNothingMergesChangesNothing) {
  int cuts = 0;
  for (int round = 0; round < 1000; ++round) {
    const auto rules = random_rules(units, 1 + below(8, random_), random_);
    const Merges merges(rules, all_units_);
    const Ids text = random_text(60);
    Ids cut;
    for (std::size_t begin = 0; begin < text.size();) {
      std::size_t end = begin + 1;
      while (end < text.size() && !merges.part(text[end - 1], text[end])) ++end;
      const Ids part = applied(merges, Ids(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                           text.begin() + static_cast<std::ptrdiff_t>(end)));
      cut.insert(cut.end(), part.begin(), part.end());
      cuts += end < text.size();
      begin = end;
    }
    ASSERT_EQ(cut, naively_applied(rules, text)) << "round " << round;
  }
  EXPECT_GT(cuts, 1000);
}

TEST_F(RandomMerges, TokensKeepTheBytesOfTheirParts) {
  const auto rules = random_rules(units, 10, random_);
  const Merges merges(rules, all_units_);
  std::vector<PieceToken> tokens = tokens_of(random_text(500));
  const std::uint32_t end = tokens.back().end;
  merges.apply(tokens);
  for (std::size_t n = 0; n < tokens.size(); ++n)
    EXPECT_EQ(tokens[n].end, n + 1 < tokens.size() ? tokens[n + 1].begin : end);
  EXPECT_EQ(tokens.front().begin, 0U);
}

// A token that is a unit and made by a rule, too, begins with more than one unit.
TEST(Merges, AUnitThatARuleMakesIsJoinedAsBoth) {
  const std::vector<Merges::Rule> rules = {{0, 1, 2}, {2, 3, 4}};
  const Merges merges(rules, Ids{0, 1, 2, 3});
  EXPECT_FALSE(merges.part(2, 3));
  EXPECT_FALSE(merges.part(1, 3));
  EXPECT_TRUE(merges.part(3, 0));
}

TEST(Merges, ALongRunOfOneTokenTakesNoSquareOfItsTime) {
  std::vector<Merges::Rule> rules;
  for (std::uint32_t n = 0; n < 10; ++n) rules.push_back({n, n, n + 1});
  const Merges merges(rules, Ids{0});
  EXPECT_EQ(applied(merges, Ids(std::size_t{1} << 20, 0)), Ids(1024, 10));
}

}  // namespace
}  // namespace annulus

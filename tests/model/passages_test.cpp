#include "annulus/model/passages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <tuple>

#include "annulus/base/error.hpp"
#include "input/temporary.hpp"
#include "model/brute_force.hpp"

namespace annulus {
namespace {

using Place = std::tuple<Index, Index, Index, Index>;

Place place(Range first, Range second) { return {first.begin, first.end, second.begin, second.end}; }

std::set<Place> places(const std::vector<Passage>& passages) {
  std::set<Place> set;
  for (const Passage& p : passages) set.insert(place(p.first, p.second));
  return set;
}

// All maximal pairs of equal stretches of at least `minimum` tokens inside documents, without those inside another
// pair.
std::set<Place> repeats(const Corpus& corpus, Index minimum) {
  std::vector<std::pair<Range, Range>> found;
  const auto same = [&](Index a, Index b) { return a >= 0 && b < corpus.tokens() && corpus.id(a) == corpus.id(b); };
  for (Index b = 0; b < corpus.tokens(); ++b)
    for (Index a = 0; a < b; ++a) {
      const Range mine = corpus.document_of(a), theirs = corpus.document_of(b);
      if (a > mine.begin && b > theirs.begin && same(a - 1, b - 1)) continue;
      Index length = 0;
      while (mine.contains(a + length) && theirs.contains(b + length) && same(a + length, b + length)) ++length;
      if (length >= minimum) found.push_back({{a, a + length}, {b, b + length}});
    }
  const auto inside = [](Range x, Range y) { return y.begin <= x.begin && x.end <= y.end; };
  std::set<Place> set;
  for (const auto& [f, s] : found)
    if (std::ranges::none_of(found, [&, f = f, s = s](const auto& other) {
          return (f != other.first || s != other.second) && inside(f, other.first) && inside(s, other.second);
        }))
      set.insert(place(f, s));
  return set;
}

std::vector<Passage> attend(const Corpus& corpus, const InductionModel& model, Index head, MergeRules rules,
                            Index top_k, DType type = DType::f32) {
  CpuDevice device;
  const Index n = corpus.tokens(), heads = model.heads();
  const Array q(device, type, n, heads, model.channels), k(device, type, n, heads, model.channels),
      v(device, type, n, heads, model.value_channels);
  const annulus::Run all{0, n, 1};
  embed(model, corpus, {&all, 1}, q, k, v);
  const BruteForce attention(q, k, v, Mask::parse("causal", {n, n}), model.softmax_scale, top_k);
  std::vector<Link> links;
  for (Index i = 0; i < n; ++i) append_exact_links(model, corpus, head, i, attention.top(i, head), type, links);
  rules.documents = corpus.offsets();
  return merge_links(links, rules);
}

std::string sentence_of(std::mt19937_64& random, Index words, Index vocabulary) {
  std::string text;
  for (Index n = 0; n < words; ++n)
    text += (n > 0 ? " w" : "w") + std::to_string(random() % static_cast<std::uint64_t>(vocabulary));
  return text;
}

// The same words as somebody else would set them: upper case, other line ends, quotation marks and comment marks.
std::string disguised(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) { return c == 'w' ? 'W' : c; });
  std::string result;
  Index spaces = 0;
  for (const char c : text) {
    if (c != ' ') result += c;
    else result += spaces++ % 5 == 4 ? ",\r\n// " : spaces % 3 == 0 ? " -- " : " ";
  }
  return "\"" + result + "\"";
}

TEST(Passages, PlantedQuotationsAreFoundAsBruteForceFindsThem) {
  std::mt19937_64 random(20261121);
  SCOPED_TRACE("seed 20261121");
  const TemporaryFolder folder;
  const std::string quote = sentence_of(random, 40, 5000), ending = sentence_of(random, 12, 5000);
  const std::string a =
      sentence_of(random, 90, 5000) + " " + quote + " " + sentence_of(random, 50, 5000) + " " + ending;
  const std::string b = sentence_of(random, 60, 5000) + "\n" + disguised(quote) + "\n" + sentence_of(random, 60, 5000) +
                        disguised(ending);
  const std::string c = disguised(quote) + " " + sentence_of(random, 30, 5000);
  const Corpus corpus(std::vector{folder.write("a", a), folder.write("b", b), folder.write("c", c)}, TokenKind::words);
  for (const DType type : {DType::f32, DType::bf16}) {
    const auto passages = attend(corpus, {}, 3, {.minimum = 8}, 8, type);
    EXPECT_EQ(places(passages), repeats(corpus, 8));
    ASSERT_EQ(passages.size(), 4U) << "a-b, a-c and b-c, and the ending";
    EXPECT_EQ(passages[0].first, (Range{90, 130}));
    EXPECT_EQ(passages[0].second, (Range{192 + 60, 192 + 100}));
    EXPECT_EQ(passages[0].tokens(), 40);
    EXPECT_EQ(passages[0].links, 33);
    EXPECT_NEAR(passages[0].mean_score, 1, InductionModel::match_tolerance(type));
    EXPECT_EQ(passages[3].first, (Range{180, 192})) << "to the last word of the file";
    const ByteRange bytes = corpus.bytes(passages[0].first);
    EXPECT_EQ(a.substr(static_cast<std::size_t>(bytes.begin), static_cast<std::size_t>(bytes.end - bytes.begin)),
              quote);
    EXPECT_EQ(
        describe(passages[0], corpus),
        sentence(corpus.files()[0], ", bytes ", bytes.begin, "-", bytes.end, " <-> ", corpus.files()[1], ", bytes ",
                 corpus.bytes(passages[0].second).begin, "-", corpus.bytes(passages[0].second).end, ", 40 words"));
  }
}

TEST(Passages, ExactLinksOfEveryHeadAreTheExactRepeatsOfRandomTexts) {
  std::mt19937_64 random(3);
  SCOPED_TRACE("seed 3");
  const TemporaryFolder folder;
  for (int trial = 0; trial < 12; ++trial) {
    const Index vocabulary = 2 + static_cast<Index>(random() % 12);
    std::vector<std::string> files;
    for (std::size_t d = 0; d < 1 + random() % 3; ++d)
      files.push_back(folder.write(std::to_string(trial) + "-" + std::to_string(d),
                                   sentence_of(random, static_cast<Index>(random() % 50), vocabulary)));
    const Corpus corpus(files, TokenKind::words);
    if (corpus.tokens() == 0) continue;
    const InductionModel model;
    for (Index h = 0; h < model.heads(); ++h)
      EXPECT_EQ(places(attend(corpus, model, h, {}, corpus.tokens())),
                repeats(corpus, model.context[static_cast<std::size_t>(h)]))
          << "trial " << trial << " context " << model.context[static_cast<std::size_t>(h)];
  }
}

TEST(Passages, TheOrderAndRepetitionOfLinksDoNotMatter) {
  std::mt19937_64 random(4);
  SCOPED_TRACE("seed 4");
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<Link> links;
    for (int n = 0; n < 60; ++n) {
      const auto second = static_cast<Index>(2 + random() % 40);
      links.push_back({static_cast<Index>(random() % static_cast<std::uint64_t>(second)), second,
                       static_cast<Index>(1 + random() % 2), 1, 1});
    }
    const MergeRules rules{
        .gap = static_cast<Index>(random() % 3), .wobble = static_cast<Index>(random() % 2), .minimum = 2};
    const auto once = places(merge_links(links, rules));
    std::ranges::shuffle(links, random);
    EXPECT_EQ(places(merge_links(links, rules)), once);
    const auto copy = links;
    links.insert(links.end(), copy.begin(), copy.end());
    EXPECT_EQ(places(merge_links(links, rules)), once);
  }
}

TEST(Passages, GapsAreBridgedAndTempoMayWobbleWithinTheRules) {
  const std::vector<Link> gap = {{10, 50, 1, 1, 1}, {11, 51, 1, 1, 1}, {14, 54, 1, 1, 1}};
  EXPECT_EQ(merge_links(gap, {.gap = 1}).size(), 2U);
  const auto bridged = merge_links(gap, {.gap = 2});
  ASSERT_EQ(bridged.size(), 1U);
  EXPECT_EQ(bridged[0].first, (Range{10, 15}));
  EXPECT_EQ(bridged[0].second, (Range{50, 55}));

  const std::vector<Link> slower = {
      {10, 50, 1, 1, 1}, {11, 51, 1, 1, 1}, {11, 52, 1, 1, 1}, {12, 53, 1, 1, 1}, {14, 54, 1, 1, 1}};
  EXPECT_EQ(merge_links(slower, {}).size(), 3U);
  const auto joined = merge_links(slower, {.wobble = 1});
  ASSERT_EQ(joined.size(), 1U);
  EXPECT_EQ(joined[0].first, (Range{10, 15}));
  EXPECT_EQ(joined[0].second, (Range{50, 55}));
  EXPECT_EQ(joined[0].links, 5);
}

TEST(Passages, WhatLiesInsideALongerPassageIsDropped) {
  std::vector<Link> links;
  for (Index n = 0; n < 9; ++n) links.push_back({n, 20 + n, 1, 1, 1});
  for (Index n = 2; n < 5; ++n) links.push_back({n + 1, 20 + n, 1, 1, 1});
  for (Index n = 2; n < 5; ++n) links.push_back({12 + n, 20 + n, 1, 1, 1});
  const auto passages = merge_links(links, {.minimum = 2});
  ASSERT_EQ(passages.size(), 2U);
  EXPECT_EQ(passages[0].tokens(), 9);
  EXPECT_EQ(passages[1].first, (Range{14, 17})) << "the same words quoted a third time stay";
}

TEST(Passages, APassageStaysInItsDocuments) {
  const std::vector<Index> documents = {0, 12, 25, 60};
  const std::vector<Link> links = {{10, 50, 1, 1, 1}, {11, 51, 1, 1, 1}, {12, 52, 1, 1, 1}, {13, 53, 1, 1, 1}};
  EXPECT_EQ(merge_links(links, {}).size(), 1U);
  EXPECT_EQ(merge_links(links, {.documents = documents}).size(), 2U);
  EXPECT_TRUE(merge_links({}, {}).empty());
}

// Records of few letters, in which 64 tokens of context leave a near miss within what 16 bits round.
TEST(Passages, LinksOfLongContextsAreExactInEveryType) {
  std::mt19937_64 random(20261129);
  SCOPED_TRACE("seed 20261129");
  const TemporaryFolder folder;
  const auto bases = [&](int count) {
    std::string text;
    for (int n = 0; n < count; ++n) text += "ACGT"[random() % 4];
    return text;
  };
  // The same but for one base, which is in each of 64 places of some context.
  const std::string once = bases(140);
  std::string text = ">whole\n" + once + "\n";
  for (const char other : std::string_view("ACGT"))
    if (other != once[70]) text += sentence(">", other, "\n", once.substr(0, 70), other, once.substr(71), "\n");
  const Corpus corpus(std::vector{folder.write("a.fa", text)}, TokenKind::bases);
  const InductionModel model = induction_model({16, 64});
  EXPECT_EQ(model.channels, 512);
  for (const DType type : {DType::f32, DType::f16, DType::bf16})
    for (Index h = 0; h < 2; ++h)
      EXPECT_EQ(places(attend(corpus, model, h, {}, 8, type)),
                repeats(corpus, model.context[static_cast<std::size_t>(h)]))
          << name_of(type) << " head " << h;
}

TEST(Passages, BasesAreCountedFromOneInTheirRecord) {
  const TemporaryFolder folder;
  const std::string first = folder.write("a.fa", ">chr1\nACGT\n>chr2\nTT" + std::string(1999, 'A') + "CGT");
  const Corpus one(std::vector{first}, TokenKind::bases);
  const Passage passage{{0, 4}, {2004, 2008}, 1, 1};
  EXPECT_EQ(describe(passage, one), "chr1, bases 1-4 <-> chr2, bases 2,001-2,004, 4 bases");
  const Corpus two(std::vector{first, folder.write("b.fa", "")}, TokenKind::bases);
  EXPECT_EQ(describe(passage, two),
            sentence(two.files()[0], ", chr1, bases 1-4 <-> ", two.files()[0], ", chr2, bases 2,001-2,004, 4 bases"));
  EXPECT_TRUE(is_monotone(one, {6, 2005}));
  EXPECT_FALSE(is_monotone(one, {6, 2006}));
}

}  // namespace
}  // namespace annulus

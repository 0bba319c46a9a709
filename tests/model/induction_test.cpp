#include "annulus/model/induction.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/model/prediction.hpp"
#include "input/temporary.hpp"
#include "model/brute_force.hpp"

namespace annulus {
namespace {

std::string random_words(std::mt19937_64& random, Index count, Index vocabulary) {
  std::string text;
  for (Index n = 0; n < count; ++n)
    text += "w" + std::to_string(random() % static_cast<std::uint64_t>(vocabulary)) + " ";
  return text;
}

// The rows of a whole corpus.
struct Embedded {
  CpuDevice device;
  Array q, k, v;
  Embedded(const InductionModel& model, const Corpus& corpus, DType type = DType::f32)
      : q(device, type, corpus.tokens(), model.heads(), model.channels),
        k(device, type, corpus.tokens(), model.heads(), model.channels),
        v(device, type, corpus.tokens(), model.heads(), model.value_channels) {
    const annulus::Run all{0, corpus.tokens(), 1};
    embed(model, corpus, {&all, 1}, q, k, v);
  }
};

// Places where the context of a query and of a key agree, out of N, by comparing tokens.
Index matches(const Corpus& corpus, Index query, Index key, Index context, bool apart) {
  if (key == 0) return 0;
  const Range mine = corpus.document_of(query), theirs = corpus.document_of(apart ? key : key - 1);
  Index count = 0;
  for (Index back = 0; back < context; ++back) {
    const Index a = query - back, b = key - 1 - back;
    if (mine.contains(a) && theirs.contains(b) && corpus.id(a) == corpus.id(b)) ++count;
  }
  return count;
}

double dot(const float* a, const float* b, Index channels) {
  double sum = 0;
  for (Index c = 0; c < channels; ++c) sum += static_cast<double>(a[c]) * b[c];
  return sum;
}

TEST(Induction, AScoreIsOneExactlyWhereTheWholeContextMatches) {
  std::mt19937_64 random(20261121);
  SCOPED_TRACE("seed 20261121");
  const TemporaryFolder folder;
  const Corpus corpus = Corpus(std::vector{folder.write("a", random_words(random, 150, 3)), folder.write("e", ""),
                                           folder.write("b", random_words(random, 100, 4)), folder.write("c", "w1")},
                               TokenKind::words);
  for (const bool apart : {false, true})
    for (const Index channels : {Index{128}, Index{101}}) {
      const InductionModel model{.context = {1, 2, 3, 8}, .channels = channels, .documents_apart = apart};
      const Embedded rows(model, corpus);
      const double tolerance = InductionModel::match_tolerance(DType::f32);
      for (Index i = 0; i < corpus.tokens(); ++i)
        for (Index j = 0; j < corpus.tokens(); ++j)
          for (Index h = 0; h < model.heads(); ++h) {
            const Index context = model.context[static_cast<std::size_t>(h)],
                        same = matches(corpus, i, j, context, apart);
            const double score = dot(rows.q.rows().at<float>(i, h), rows.k.rows().at<float>(j, h), channels);
            ASSERT_EQ(std::abs(score - 1) <= tolerance, same == context)
                << i << " " << j << " context " << context << " score " << score;
          }
    }
}

// Tokens that differ add noise: with n slices of S channels that differ, deviation sqrt(n / S) / N; five deviations
// hold for 99.99994 % of a normal distribution, whose tails are heavier than ours (a cosine is bounded).
TEST(Induction, AScoreCountsTheMatchingPlaces) {
  std::mt19937_64 random(11);
  SCOPED_TRACE("seed 11");
  const TemporaryFolder folder;
  const Corpus corpus(std::vector{folder.write("a", random_words(random, 400, 12))}, TokenKind::words);
  const InductionModel model;
  const Embedded rows(model, corpus);
  for (Index h = 0; h < model.heads(); ++h) {
    const Index context = model.context[static_cast<std::size_t>(h)];
    for (Index i = 8; i < corpus.tokens(); ++i)
      for (Index j = 8; j < i; ++j) {
        const Index same = matches(corpus, i, j, context, false);
        const double share = static_cast<double>(same) / static_cast<double>(context);
        const double noise =
            std::sqrt(static_cast<double>((context - same) * context) / 128) / static_cast<double>(context);
        ASSERT_NEAR(dot(rows.q.rows().at<float>(i, h), rows.k.rows().at<float>(j, h), 128), share, 5 * noise + 1e-6);
      }
  }
}

TEST(Induction, RowsDoNotDependOnWhoEmbedsThem) {
  std::mt19937_64 random(5);
  SCOPED_TRACE("seed 5");
  const TemporaryFolder folder;
  const std::string a = folder.write("a", random_words(random, 57, 20)),
                    b = folder.write("b", random_words(random, 40, 30));
  const Corpus corpus(std::vector{a, b}, TokenKind::words);
  const InductionModel model;
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    const Embedded whole(model, corpus, type);
    const std::vector<annulus::Run> runs = {{3, 30, 3}, {0, 0, 1}, {1, 2, 1}};
    CpuDevice device;
    const Array q(device, type, 32, 4, 128), k(device, type, 32, 4, 128), v(device, type, 32, 4, 64);
    embed(model, corpus, runs, q, k, v);
    embed(model, corpus, runs, {}, {}, v);
    Index row = 0;
    for (const annulus::Run run : runs)
      for (Index n = 0; n < run.count; ++n, ++row)
        for (const auto& [mine, all] : {std::pair(q.rows(), whole.q.rows()), std::pair(k.rows(), whole.k.rows()),
                                        std::pair(v.rows(), whole.v.rows())})
          EXPECT_TRUE(std::ranges::equal(mine.span(row, row + 1), all.span(run.at(n), run.at(n) + 1)));
  }
}

TEST(Induction, AWordHasTheSameCodeInEveryCorpus) {
  const TemporaryFolder folder;
  const Corpus one(std::vector{folder.write("a", "alpha beta")}, TokenKind::words),
      other(std::vector{folder.write("b", "x y beta")}, TokenKind::words);
  const InductionModel model;
  const Embedded first(model, one), second(model, other);
  EXPECT_TRUE(std::ranges::equal(first.v.rows().span(1, 2), second.v.rows().span(2, 3)));
  EXPECT_NEAR(dot(first.v.rows().at<float>(1, 2), first.v.rows().at<float>(1, 2), 64), 1, 1e-6);
}

TEST(Induction, RoundedRowsStillTellMatchesApart) {
  std::mt19937_64 random(6);
  SCOPED_TRACE("seed 6");
  const TemporaryFolder folder;
  const Corpus corpus(std::vector{folder.write("a", random_words(random, 300, 5))}, TokenKind::words);
  const InductionModel model;
  for (const DType type : {DType::bf16, DType::f16}) {
    const Embedded rows(model, corpus, type);
    CpuDevice device;
    const Array q(device, DType::f32, 300, 4, 128), k(device, DType::f32, 300, 4, 128);
    convert(rows.q, q);
    convert(rows.k, k);
    for (Index i = 0; i < 300; ++i)
      for (Index j = 1; j <= i; ++j)
        for (Index h = 0; h < 4; ++h) {
          const Index context = model.context[static_cast<std::size_t>(h)];
          const double score = dot(q.rows().at<float>(i, h), k.rows().at<float>(j, h), 128);
          ASSERT_EQ(std::abs(score - 1) <= InductionModel::match_tolerance(type),
                    matches(corpus, i, j, context, false) == context)
              << score;
        }
  }
}

TEST(Induction, WrongShapesAreRefused) {
  const TemporaryFolder folder;
  const Corpus corpus(std::vector{folder.write("a", "one two three")}, TokenKind::words);
  CpuDevice device;
  const Array rows(device, DType::f32, 2, 4, 128);
  const annulus::Run two{0, 2, 1}, outside{2, 2, 1};
  EXPECT_NO_THROW(embed({}, corpus, {&two, 1}, rows, rows, {}));
  EXPECT_THROW(embed({}, corpus, {&two, 1}, rows, rows, rows), Error);
  EXPECT_THROW(embed({}, corpus, {&outside, 1}, rows, rows, {}), Error);
  EXPECT_THROW(embed({.context = {1, 17}}, corpus, {&two, 1}, {}, {}, {}), Error);
  EXPECT_THROW(embed({.context = {}}, corpus, {&two, 1}, {}, {}, {}), Error);
}

TEST(Induction, ContextsChooseHeadsAndChannels) {
  EXPECT_EQ(induction_model(usual_contexts(TokenKind::words)).context, InductionModel{}.context);
  EXPECT_EQ(induction_model(usual_contexts(TokenKind::bases)).channels, 128);
  EXPECT_EQ(induction_model({3}).channels, 128);
  EXPECT_EQ(induction_model({1, 17}).channels, 136);
  for (const std::vector<Index>& wrong :
       std::vector<std::vector<Index>>{{}, {0, 1}, {2, 2}, {4, 2}, {1, 65}, {-1}, {1, 2, 3, 4, 5, 6, 7, 8, 9}})
    EXPECT_THROW(induction_model(wrong), Error);
}

// A text that repeats itself: from the second round on, the head knows what comes, and the first round is not worse
// than the unigram by more than the price of the mixture, -log2(novelty) = 2 bits.
TEST(Induction, ARepeatedTextIsPredicted) {
  std::mt19937_64 random(9);
  SCOPED_TRACE("seed 9");
  const TemporaryFolder folder;
  const std::string once = random_words(random, 200, 60);
  const Corpus corpus(std::vector{folder.write("a", once + once)}, TokenKind::words);
  const InductionModel model;
  const Embedded rows(model, corpus);
  const BruteForce attention(rows.q, rows.k, rows.v, Mask::parse("causal", {400, 400}), model.softmax_scale, 8);
  PredictionSummary first(model.heads()), second(model.heads());
  for (Index i = 0; i < 400; ++i) {
    PredictionSummary& half = i < 200 ? first : second;
    half.add(half.unigram(), predict_unigram(corpus, i));
    for (Index h = 0; h < model.heads(); ++h) half.add(h, predict(model, corpus, i, attention.top(i, h)));
  }
  EXPECT_EQ(second.predictions(3), 199) << "the last token has no successor";
  EXPECT_GT(second.accuracy(2), 0.98);
  EXPECT_LT(second.bits(2), 0.5) << "log2(4/3) = 0.415 where the head is sure and right";
  EXPECT_GT(second.bits(second.unigram()), 5);
  EXPECT_LT(first.bits(3), first.bits(first.unigram()) + 0.1) << "no 8 tokens repeat in the first round";
  PredictionSummary both = first;
  both += second;
  EXPECT_EQ(both.predictions(0), 399);
  EXPECT_NEAR(both.bits(1) * 399, first.bits(1) * 200 + second.bits(1) * 199, 1e-9);
}

TEST(Induction, ThePredictionsOfAHeadAreADistribution) {
  std::mt19937_64 random(10);
  SCOPED_TRACE("seed 10");
  const TemporaryFolder folder;
  const Corpus corpus(std::vector{folder.write("a", random_words(random, 120, 7))}, TokenKind::words);
  const InductionModel model;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<Index> keys(4, -1);
    std::vector<float> scores(4, -INFINITY);
    double weight = 0;
    for (std::size_t n = 0; n < random() % 5; ++n) {
      keys[n] = static_cast<Index>(random() % 100), scores[n] = 40 + static_cast<float>(random() % 24);
      weight += std::exp(scores[n]);
    }
    const double lse = std::log(weight * 1.5 + 1);
    // The bits of a truth with novelty 0 are the head's own probability of it: give every token its turn as the truth.
    double total = 0, largest = 0;
    std::map<std::uint32_t, Index> before;
    for (Index t = 0; t + 1 < corpus.tokens(); ++t) before[corpus.id(t + 1)] = t;
    ASSERT_EQ(static_cast<Index>(before.size()), corpus.vocabulary());
    double said = 0;
    for (const auto& [id, query] : before) {
      const Prediction p = predict(model, corpus, query, {keys, scores, lse}, {.novelty = 0});
      total += std::exp2(-p.bits), largest = std::max(largest, std::exp2(-p.bits)), said = p.probability;
      EXPECT_EQ(p.correct, p.token == id);
    }
    EXPECT_NEAR(total, 1, 1e-6);
    EXPECT_NEAR(said, largest, 1e-9);
  }
}

}  // namespace
}  // namespace annulus

#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "annulus/input/text.hpp"
#include "annulus/model/induction.hpp"

namespace annulus {

/// What one head's query attends to, as Kernel::observe leaves it: global keys, most probable first, -1 where unused;
/// their scores with softmax_scale applied; and the final lse of the row. Key n has probability exp(scores[n] - lse).
struct TopKeys {
  std::span<const Index> keys;
  std::span<const float> scores;
  double lse = 0;
};

/// Constants of the reading of attention as prediction.
struct PredictionRules {
  /// A key that matches less than this share of the context is no evidence: an attention sink of score softmax_scale *
  /// evidence stands among the keys, and its mass goes to the unigram. Without it, a query that matches nothing would
  /// be sure of a random key. 3/4 lies above what the best of 10^6 random keys scores (5 / sqrt(128) = 0.44).
  double evidence = 0.75;
  /// A true token is charged -log2((1 - novelty) head + novelty unigram). 1/4 is the Krichevsky-Trofimov probability of
  /// a new symbol after one observation, which is what one earlier occurrence is.
  double novelty = 0.25;
};

/// What a head (or the unigram) says about the token after the query.
struct Prediction {
  std::uint32_t token = 0;  ///< the most probable id; of those that are as probable but for rounding (2e-4) the smallest
  double probability = 0;   ///< of `token`, as the head says it: votes + leftover * unigram
  bool has_truth = false;   ///< false for the last token of a document: nothing follows
  bool correct = false;     ///< token is the one that follows
  double bits = 0;          ///< of the token that follows
};

/// Key j votes for the token at j with its probability; mass on keys beyond the top and on the sink goes to the
/// unigram. query: global position. Throws Error (usage) when a key is not a token of the corpus.
Prediction predict(const InductionModel& model, const Corpus& corpus, Index query, const TopKeys& top,
                   const PredictionRules& rules = {});
/// The baseline: always the most frequent token; bits from the counts of the whole corpus.
Prediction predict_unigram(const Corpus& corpus, Index query);

/// Sums over predictions that can be added across ranks: three numbers (predictions, correct, bits) for each column;
/// the columns are the heads and, last, the unigram baseline.
struct PredictionSummary {
  explicit PredictionSummary(Index heads) : sums(static_cast<std::size_t>(3 * (heads + 1))) {}
  std::vector<double> sums;  ///< [heads + 1, 3], added element by element over ranks

  Index heads() const { return static_cast<Index>(sums.size()) / 3 - 1; }
  Index unigram() const { return heads(); }
  /// Counts a prediction whose truth is known; others are ignored.
  void add(Index column, const Prediction& prediction);
  double predictions(Index column) const { return sums[static_cast<std::size_t>(3 * column)]; }
  /// Share of correct predictions; 0 when there are none.
  double accuracy(Index column) const;
  /// Mean bits per token; 0 when there are none.
  double bits(Index column) const;
  PredictionSummary& operator+=(const PredictionSummary& other);
};

}  // namespace annulus

#include "annulus/model/prediction.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

struct Truth {
  bool known = false;
  std::uint32_t id = 0;
};

Truth next_token(const Corpus& corpus, Index query) {
  require(query >= 0 && query < corpus.tokens(), "query ", query, " is not a token of the corpus");
  if (query + 1 >= corpus.document_of(query).end) return {};
  return {true, corpus.id(query + 1)};
}

// Probabilities of the few tokens that the top keys vote for, and what is left for all others.
struct Votes {
  std::vector<std::pair<std::uint32_t, double>> mass;
  double leftover = 1;

  double of(std::uint32_t id) const {
    const auto found = std::ranges::find(mass, id, &std::pair<std::uint32_t, double>::first);
    return found == mass.end() ? 0 : found->second;
  }
};

Votes count_votes(const Corpus& corpus, const TopKeys& top, double sink_score) {
  Votes votes;
  const double larger = std::max(top.lse, sink_score);
  const double total = larger + std::log(std::exp(top.lse - larger) + std::exp(sink_score - larger));
  double voted = 0;
  for (std::size_t n = 0; n < top.keys.size() && top.keys[n] >= 0; ++n) {
    require(top.keys[n] < corpus.tokens(), "key ", top.keys[n], " is not a token of the corpus");
    const std::uint32_t id = corpus.id(top.keys[n]);
    const double mass = std::exp(static_cast<double>(top.scores[n]) - total);
    const auto found = std::ranges::find(votes.mass, id, &std::pair<std::uint32_t, double>::first);
    if (found == votes.mass.end()) votes.mass.emplace_back(id, mass);
    else found->second += mass;
    voted += mass;
  }
  if (voted > 1)  // by the rounding of the lse
    for (auto& [id, mass] : votes.mass) mass /= voted;
  votes.leftover = std::max(0.0, 1 - voted);
  return votes;
}

}  // namespace

Prediction predict(const InductionModel& model, const Corpus& corpus, Index query, const TopKeys& top,
                   const PredictionRules& rules) {
  const Truth truth = next_token(corpus, query);
  const Votes votes = count_votes(corpus, top, model.softmax_scale * rules.evidence);
  const auto probability = [&](std::uint32_t id) { return votes.of(id) + votes.leftover * corpus.frequency(id); };

  // What is equal but for rounding is equal: two weights, each off by less than 1e-4 (see InductionModel::softmax_scale).
  constexpr double tie = 2e-4;
  Prediction prediction{corpus.most_frequent(), probability(corpus.most_frequent())};
  double most = prediction.probability;
  for (const auto& [id, mass] : votes.mass) most = std::max(most, probability(id));
  if (prediction.probability < (1 - tie) * most) prediction.token = std::numeric_limits<std::uint32_t>::max();
  for (const auto& [id, mass] : votes.mass)
    if (probability(id) >= (1 - tie) * most && id < prediction.token) prediction.token = id;
  prediction.probability = probability(prediction.token);
  if (!truth.known) return prediction;
  prediction.has_truth = true;
  prediction.correct = prediction.token == truth.id;
  prediction.bits =
      -std::log2((1 - rules.novelty) * probability(truth.id) + rules.novelty * corpus.frequency(truth.id));
  return prediction;
}

Prediction predict_unigram(const Corpus& corpus, Index query) {
  const Truth truth = next_token(corpus, query);
  Prediction prediction{corpus.most_frequent(), corpus.frequency(corpus.most_frequent())};
  if (!truth.known) return prediction;
  prediction.has_truth = true;
  prediction.correct = prediction.token == truth.id;
  prediction.bits = -std::log2(corpus.frequency(truth.id));
  return prediction;
}

void PredictionSummary::add(Index column, const Prediction& prediction) {
  if (!prediction.has_truth) return;
  double* sum = &sums.at(static_cast<std::size_t>(3 * column));
  sum[0] += 1;
  sum[1] += prediction.correct ? 1 : 0;
  sum[2] += prediction.bits;
}

double PredictionSummary::accuracy(Index column) const {
  const double all = predictions(column);
  return all > 0 ? sums[static_cast<std::size_t>(3 * column + 1)] / all : 0;
}

double PredictionSummary::bits(Index column) const {
  const double all = predictions(column);
  return all > 0 ? sums[static_cast<std::size_t>(3 * column + 2)] / all : 0;
}

PredictionSummary& PredictionSummary::operator+=(const PredictionSummary& other) {
  require(sums.size() == other.sums.size(), "summaries of ", heads(), " and ", other.heads(), " heads cannot be added");
  std::ranges::transform(sums, other.sums, sums.begin(), std::plus<>{});
  return *this;
}

}  // namespace annulus

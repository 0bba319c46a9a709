#include "app/predicted_timeline.hpp"

#include <algorithm>
#include <cstdio>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/timeline_events.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

constexpr int most_ranks = 64;
constexpr Index most_slices = Index{1} << 18;

// About: a visit is computed, merged and waited for, and its block is received and sent on, as are the sums that follow it. Few ranks
// have more, by sending their own blocks several times.
Index slices_of_a_rank(const Schedule& schedule, bool backward) {
  const Planner& planner = schedule.planner;
  Index visits = 0;
  for (int step = 0; step < planner.steps(); ++step) visits += static_cast<Index>(planner.visits(step).size());
  const Index work = 3 * visits + Index{20} * schedule.grid.heads, blocks = 2 * visits, both = work + 2 * blocks;
  return (schedule.grid.travel == Travel::queries ? both : work + blocks) + (backward ? both : 0);
}

int ranks_to_record(const Job& job, bool backward) {
  const Index fitting = most_slices / slices_of_a_rank(job.schedule, backward);
  const int ranks = static_cast<int>(std::clamp<Index>(fitting, 1, std::min(most_ranks, job.place.ranks)));
  const int each = job.place.ranks_per_node;
  return ranks < job.place.ranks && ranks > each ? ranks / each * each : ranks;
}

}  // namespace

PredictedTimeline::PredictedTimeline(const Settings& settings) : settings_(settings) {
  if (!settings.has("timeline")) return;
  draft_.emplace(settings.name_of("timeline"), settings.text("timeline"));
}

Estimate PredictedTimeline::estimate(const Job& job, const Prices& prices) {
  if (!draft_) return estimate_of(job, job.schedule, prices);
  require(!steps_are_sampled(job.schedule, prices), settings_.name_of("timeline"),
          " shows every step, and of plans in which so many seats see each other only some are simulated: pairs of "
          "seats = ",
          job.schedule.planner.looks(), ", at most ", prices.most_looks);
  prediction_.ranks.resize(static_cast<std::size_t>(ranks_to_record(job, prices.backward)));
  return annulus::estimate(job.schedule, prices, &prediction_);
}

void PredictedTimeline::write(const Job& job, json& page) {
  if (!draft_) return;
  const auto recorded = static_cast<int>(prediction_.ranks.size());
  const int ranks = job.place.ranks, each = job.place.ranks_per_node;
  std::vector<std::string> events;
  for (Rank rank = 0; rank < recorded; ++rank) {
    Prediction::OfRank& mine = prediction_.ranks[static_cast<std::size_t>(rank)];
    std::stable_partition(mine.messages.begin(), mine.messages.end(),
                          [](const Message& m) { return m.sent; });  // their tracks come first, as in measured ones
    events.push_back(timeline_events({.rank = rank,
                                      .name = sentence("rank ", rank, " on node ", rank / each, ", predicted"),
                                      .events = mine.events,
                                      .messages = mine.messages,
                                      .microseconds = [](double seconds) { return seconds * 1e6; },
                                      .ranks = recorded}));
  }
  json about{{"times", "predicted"}, {"program", sentence("annulus ", ANNULUS_VERSION)}, {"recorded_ranks", recorded}};
  for (const auto& [key, value] : page.items())
    if (value.is_primitive() && key != "version") about[key] = value;
  draft_->commit(timeline_text(events, about));
  const std::string& path = settings_.text("timeline");
  const std::string whose = ranks == 1          ? "the only rank"
                            : recorded == ranks ? sentence("all ", ranks, " ranks")
                                                : sentence("the first ", recorded, " of ", grouped(ranks),
                                                           " ranks, as much as can be looked at");
  std::printf("\n  timeline        %s: predicted, of %s\n", path.c_str(), whose.c_str());
  page["timeline"] = {{"file", path}, {"recorded_ranks", recorded}};
}

}  // namespace annulus::app

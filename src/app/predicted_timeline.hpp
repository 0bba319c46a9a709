#pragma once
#include <nlohmann/json.hpp>
#include <optional>

#include "annulus/plan/prediction.hpp"
#include "app/job.hpp"
#include "app/text_draft.hpp"

namespace annulus::app {

/// What `plan --timeline` writes: what the simulation says that ranks do, as the timelines of jobs that ran. Of all ranks, but at most
/// 64 and about 262,144 slices: more cannot be looked at. Then it is the first ranks, of whole nodes where one fits.
class PredictedTimeline {
 public:
  /// Begins the file, if one is wanted. Throws Error: file, when it cannot be written, usage, when it would replace an input or --json.
  explicit PredictedTimeline(const Settings& settings);
  /// As annulus::estimate(), and keeps what ranks do if a file is wanted. Throws Error (usage) when not every step is simulated.
  Estimate estimate(const Job& job, const Prices& prices);
  /// Finishes the file, prints a line about it, and adds that to the machine-readable twin of the page, which says what was asked for.
  void write(const Job& job, nlohmann::json& page);

 private:
  const Settings& settings_;
  std::optional<TextDraft> draft_;
  Prediction prediction_;
};

}  // namespace annulus::app

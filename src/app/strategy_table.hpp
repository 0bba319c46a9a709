#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/plan_page.hpp"

namespace annulus::app {

/// A strategy on the job's partition, or why it is refused.
struct StrategyLine {
  std::string name, refusal;
  Grid grid;
  Estimate estimate;
  Index memory = 0;    ///< bytes of a rank at most, traces included
  bool roomy = false;  ///< more than auto spends
  bool legal() const { return refusal.empty(); }
};
/// priced: told when a strategy is.
std::vector<StrategyLine> price_strategies(const Planned& plan, const std::function<void()>& priced);

/// Prints every strategy with its predicted time, exposed exchange, bytes per class of links and memory per rank, or the reason
/// why it is refused; then the fastest, and why. out: gets the same as "strategies" and "fastest".
void print_strategies(const std::vector<StrategyLine>& lines, const Planned& plan, nlohmann::json& out);

}  // namespace annulus::app

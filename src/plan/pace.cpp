#include "plan/pace.hpp"

#include <algorithm>
#include <cmath>

#include "annulus/base/error.hpp"

namespace annulus {

double rate_at(std::span<const RatePoint> points, double tokens) {
  const auto above = std::ranges::lower_bound(points, tokens, {}, &RatePoint::tokens);
  if (above == points.begin()) return above->operations_per_second;
  const RatePoint& below = *(above - 1);
  if (above == points.end()) return below.operations_per_second;
  const double share = std::log(tokens / below.tokens) / std::log(above->tokens / below.tokens);
  return below.operations_per_second + share * (above->operations_per_second - below.operations_per_second);
}

Pace::Pace(const Rates& rates, double operations_per_pair, double seconds_per_key, bool transposed)
    : seconds_per_row_(transposed ? seconds_per_key : 0), seconds_per_column_(transposed ? 0 : seconds_per_key) {
  require(!rates.full.empty() || !rates.causal.empty(), "prices need the rate of a kernel");
  const auto fill = [&](Table& table, std::span<const RatePoint> points) {
    for (std::size_t i = 0; i < table.size(); ++i)
      table[i] = operations_per_pair / rate_at(points, std::exp2(static_cast<double>(i) / 2));
  };
  fill(full_, rates.full.empty() ? rates.causal : rates.full);
  fill(cut_, rates.causal.empty() ? rates.full : rates.causal);
  least_ = std::min(std::ranges::min(full_), std::ranges::min(cut_));
}

namespace {

Pace pace_of(const Prices& p, const Grid& grid, Index together, bool backward) {
  const int lanes = grid.heads;
  const auto width = static_cast<double>(p.channels + p.value_channels);
  const double products = width * static_cast<double>(largest_query_share(p, lanes)),
               key_bytes = width * static_cast<double>(largest_kv_share(p, lanes) * p.element_bytes);
  return {backward ? p.backward_rates : p.forward, (backward ? 5 : 2) * products,
          key_bytes / p.key_bytes_per_second / static_cast<double>(together), queries_travel(grid.travel)};
}

// Seats whose queries a step has all at once: they meet the same keys in one go, so that these are read once.
Index seats_together(const Schedule& job) {
  if (job.grid.travel != Travel::tree) return 1;
  return std::clamp<Index>(job.mask.queries(), 1, job.planner.seats());
}

}  // namespace

Paces::Paces(const Schedule& job, const Prices& p)
    : forward(pace_of(p, job.grid, seats_together(job), false)),
      backward(pace_of(p, job.grid, seats_together(job), true)) {}

}  // namespace annulus

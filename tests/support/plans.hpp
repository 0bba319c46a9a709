#pragma once
#include <vector>

#include "annulus/plan/plan.hpp"

namespace annulus {

/// The plans of all seats, each made on its own.
inline std::vector<Plan> plans_of(const Planner& planner) {
  std::vector<Plan> plans;
  for (Rank seat = 0; seat < planner.seats(); ++seat) plans.push_back(planner.plan(seat));
  return plans;
}

}  // namespace annulus

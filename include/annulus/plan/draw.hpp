#pragma once
#include <string>

#include "annulus/plan/cost.hpp"
#include "annulus/plan/plan.hpp"

namespace annulus {

/// Who computes what when: a line per seat, a column per step; each cell names the owner of the block worked on and shows
/// the work as a bar, full for the most work any seat shown has in any step.
///
///   seat  step 0   step 1   step 2
///      0  0 ████   1 ██     2 ██
///
/// Long plans are cut to `most_seats` lines and `most_steps` columns, and say so.
std::string draw(const Schedule& schedule, int most_seats = 16, int most_steps = 10);

}  // namespace annulus

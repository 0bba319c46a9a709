#pragma once
#include "app/config.hpp"
#include "app/context.hpp"
#include "app/job.hpp"

namespace annulus::app {

/// The settings with numbers in place of `--weights measured`: what the arithmetic of each rank's processor reaches with its
/// threads, all ranks at work at once. All ranks; throws Error (usage) for a GPU or a kernel that has no such figure.
Settings with_measured_weights(const Settings& settings, const Placement& place, RankTools& tools);

}  // namespace annulus::app

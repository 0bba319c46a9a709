#pragma once
#include <functional>

#include "app/config.hpp"
#include "app/context.hpp"

namespace annulus::app {

/// A rank's part of a command that leaves its --timeline, if one is wanted: as timeline_events() says. Clocks are aligned to
/// rank 0's before and after, so that slow drift is taken out, too.
std::function<void(RankTools&)> recorded(const Settings& settings, std::function<void(RankTools&)> body);

}  // namespace annulus::app

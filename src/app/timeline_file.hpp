#pragma once
#include <functional>

#include "app/config.hpp"
#include "app/context.hpp"

namespace annulus::app {

/// A rank's part of a command that leaves its --timeline, if one is wanted: Chrome/Perfetto JSON with a process per rank, a
/// track of what it did (compute, wait, merge; control: agreements, whose few bytes are not shown), tracks of the rows it sent
/// and received, and an arrow from every send to its receive. Clocks are aligned to rank 0's before and after, so that slow drift is taken out, too.
std::function<void(RankTools&)> recorded(const Settings& settings, std::function<void(RankTools&)> body);

}  // namespace annulus::app

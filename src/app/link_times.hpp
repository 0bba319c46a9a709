#pragma once
#include <vector>

#include "annulus/transport/transport.hpp"

namespace annulus::app {

/// Seconds per message of `bytes`, as every rank sends one to the rank `stride` further and receives one from the rank as far
/// before, in `repetitions` bursts; the slowest rank's, on all ranks.
std::vector<double> shift_seconds(Transport& transport, Index bytes, int stride, Index repetitions);

/// Seconds one way between two ranks, half of each round trip, on all ranks; the others only count batches.
std::vector<double> ping_pong_seconds(Transport& transport, Rank a, Rank b, Index bytes, Index repetitions);

}  // namespace annulus::app

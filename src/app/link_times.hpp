#pragma once
#include <vector>

#include "annulus/transport/transport.hpp"

namespace annulus::app {

/// Seconds per message of `bytes`, as every rank sends one to the rank `stride` further and receives one from the rank as far
/// before, in `repetitions` bursts; the slowest rank's, on all ranks.
std::vector<double> shift_seconds(Transport& transport, Index bytes, int stride, Index repetitions);

/// Seconds of a message between two ranks, on all ranks; the others only count batches. both_ways: each sends one and receives
/// one at the same time, as neighbours in a ring do; else in turn, half of each round trip.
std::vector<double> pair_seconds(Transport& transport, Rank a, Rank b, Index bytes, bool both_ways, Index repetitions);

/// As pair_seconds both ways, while both ranks compute for `busy_seconds` and look after the exchange every 40 ms, as the engine
/// does: seconds of a message and the computing together.
std::vector<double> busy_pair_seconds(Transport& transport, Rank a, Rank b, Index bytes, double busy_seconds,
                                      Index repetitions);

}  // namespace annulus::app

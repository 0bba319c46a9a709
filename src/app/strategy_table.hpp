#pragma once
#include <nlohmann/json.hpp>

#include "app/job.hpp"

namespace annulus::app {

/// Prints every strategy on the job's partition with its predicted time, exposed exchange, bytes per class of links and
/// memory per rank, or the reason why it is refused; then the fastest, and why. mine: of the job itself. out: gets the same
/// as "strategies" and "fastest".
void print_strategies(const Job& job, const Estimate& mine, const Prices& prices, nlohmann::json& out);

}  // namespace annulus::app

#pragma once
#include "app/config.hpp"
#include "app/context.hpp"
#include "app/job.hpp"

namespace annulus::app {

/// One rank of `run` with a trained transformer: texts -> activations and attention traces of its layers, and what it
/// predicts. Only in builds that read checkpoints; backends.hpp knows.
void run_transformer_rank(const Settings& settings, const Context& context, const Placement& place, RankTools& tools);

}  // namespace annulus::app

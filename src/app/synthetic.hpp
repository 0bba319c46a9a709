#pragma once
#include <cstdint>
#include <span>

#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"
#include "app/recompute.hpp"

namespace annulus::app {

/// Inputs for benchmarks: about normal, of variance 1, and a function of tensor, token, head and channel alone, so that every
/// rank can make any row of any tensor without a file and without asking.
/// rows: of runs, any type; scores then have a standard deviation of about sqrt(channels) * softmax_scale.
void fill_synthetic(RowSource::What tensor, std::span<const Run> runs, const Rows& rows);

}  // namespace annulus::app

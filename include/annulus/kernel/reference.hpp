#pragma once
#include "annulus/kernel/kernel.hpp"

namespace annulus {

/// The naive kernel in float64, the judge of all others: every type of input, any shape; one thread.
/// Accumulates in f64 when `accumulator` is f64, else into f32 (still computing in f64 inside a call).
std::unique_ptr<Kernel> make_reference_kernel(const Problem& problem, DType accumulator = DType::f64);

}  // namespace annulus

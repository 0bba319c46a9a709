#pragma once
#include <string>
#include <string_view>

namespace annulus::app {

/// What the system calls the processor; "unknown" when it does not say.
std::string processor_name();

/// Operations per second that `threads` threads reach with the instructions a CPU kernel multiplies with, registers only,
/// measured now for about 2 ms: for kernels on AMX tiles products of bf16. 0 for a kernel without such a figure
/// (reference).
double processor_peak(std::string_view kernel, int threads);

}  // namespace annulus::app

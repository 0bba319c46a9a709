#pragma once
#include <span>

#include "app/config.hpp"

namespace annulus::app {

/// Every command of the program, in the order of --help.
std::span<const Command> commands();

Command run_command();
Command attend_command();
Command plan_command();
Command bench_command();
Command verify_command();
Command report_command();
Command inspect_command();
Command info_command();

}  // namespace annulus::app

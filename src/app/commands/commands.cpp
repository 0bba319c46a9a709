#include "app/commands/commands.hpp"

#include <vector>

namespace annulus::app {

std::span<const Command> commands() {
  static const std::vector<Command> table{run_command(),    attend_command(), plan_command(),    bench_command(),
                                          verify_command(), report_command(), inspect_command(), info_command()};
  return table;
}

}  // namespace annulus::app

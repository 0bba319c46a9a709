#pragma once
#include <span>
#include <string>
#include <string_view>

#include "app/config.hpp"

namespace annulus::app {

/// The options every command has: --config, --print-config, --help.
std::vector<Option> general_options();

/// `annulus --help`: the commands, one line each.
std::string overview_page(std::span<const Command> commands);
/// `annulus COMMAND --help`: usage, examples, options by group with defaults and units, exit codes.
std::string help_page(const Command& command);
/// `--print-config`: every value and where it came from, as a file that --config reads.
std::string config_page(const Settings& settings);

/// A line of text that starts at this column, broken where the page ends (column 100); every line ends.
std::string wrapped_line(std::string_view text, std::size_t first_column);
/// "--output FILE", "--overwrite".
std::string usage_of(const Option& option);

}  // namespace annulus::app

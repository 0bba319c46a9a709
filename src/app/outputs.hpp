#pragma once
#include <string>
#include <vector>

#include "app/config.hpp"

namespace annulus::app {

/// Before anything is computed: throws Error (usage) when a file that an option names to be written (--output, --append, --json,
/// --csv, --timeline) would replace an input (also of --input, --hardware and --config), or the file of another one; or when it
/// is "-", which no command takes for the standard output.
void check_outputs(const Settings& settings, std::vector<std::string> inputs);

/// Whether two paths lead to one file, or would.
bool same_file(const std::string& a, const std::string& b);

}  // namespace annulus::app

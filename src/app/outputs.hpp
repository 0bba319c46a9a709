#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "app/config.hpp"

namespace annulus::app {

/// Before anything is computed: throws Error (usage) when a file that one of these options names would replace an input, the hardware
/// profile, the file of --config, or the file of another one.
void check_outputs(const Settings& settings, std::vector<std::string> inputs,
                   std::initializer_list<std::string_view> outputs = {"output", "timeline"});

}  // namespace annulus::app

#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace annulus::app {

/// One `key = value` of a configuration file.
struct IniLine {
  std::string key, value;
  int line = 0;
};

/// Reads a configuration file:
///     # a comment
///     mask = causal+window:4095,0      # a comment: '#' at the start of a line or after white space
///     output = results/run#2.h5        (no comment: the '#' is part of the value)
///     title = "spaces # and signs"     (between double quotes everything is kept)
/// Keys are option names; there are no sections. Flags are written `overwrite = true`. White space around keys and
/// values is dropped. Boost's own reader ends values at every '#' and counts no lines, so it is not used. Throws Error
/// (usage) that names the option, the file, the line and the rule.
std::vector<IniLine> read_ini(const std::string& path, const std::string& option = "--config");

/// The value as read_ini gives it back: quoted where it must be.
std::string ini_value(std::string_view value);

}  // namespace annulus::app

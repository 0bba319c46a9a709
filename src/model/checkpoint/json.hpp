#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace annulus::checkpoint {

/// Parses JSON written by others. Throws Error (file) when it is not JSON, nests deeper than a checkpoint's files do, or
/// names one thing twice.
nlohmann::json parse_json(const std::string& path, std::string_view text);

}  // namespace annulus::checkpoint

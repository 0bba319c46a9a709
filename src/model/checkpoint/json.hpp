#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace annulus::checkpoint {

/// Parses JSON written by others. Throws Error (file) when it is not JSON, nests more than `deepest` deep (4: {"name": {"shape":
/// [1]}}, and one to spare), or names one thing twice.
nlohmann::json parse_json(const std::string& path, std::string_view text, int deepest = 4);

}  // namespace annulus::checkpoint

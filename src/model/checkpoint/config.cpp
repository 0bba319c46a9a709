#include "model/checkpoint/config.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "model/checkpoint/json.hpp"

namespace annulus {
namespace {

constexpr Index longest_config = Index{1} << 24;
constexpr int deepest = 8;  // text_config.rope_parameters.full_attention.long_factor[0], and some to spare
constexpr double most_count = 0x1p40;

}  // namespace

Config::Config(const std::string& folder) : path_((std::filesystem::path(folder) / "config.json").string()) {
  std::error_code unknown;
  require<Failure::file>(std::filesystem::is_regular_file(path_, unknown), path_,
                         " must be a file: a model is a folder with config.json, safetensors files and tokenizer.json");
  require<Failure::file>(static_cast<Index>(std::filesystem::file_size(path_, unknown)) <= longest_config, path_,
                         " must be a short file, of at most ", longest_config, " bytes");
  std::ifstream file(path_, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  values_ = checkpoint::parse_json(path_, text, deepest);
  require<Failure::file>(values_.is_object(), path_, " must be an object of JSON");
}

Config Config::with_defaults(std::string_view json) const {
  nlohmann::json values = checkpoint::parse_json(path_, json);
  for (const auto& [key, value] : values_.items()) values[key] = value;
  return {path_, inside_, std::move(values)};
}

std::optional<Config> Config::section(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return inside(key);
}

const nlohmann::json* Config::find(std::string_view key) const {
  const auto at = values_.find(key);
  return at == values_.end() || at->is_null() ? nullptr : &*at;
}

std::string Config::found(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) return "missing";
  if (value->is_object()) return "an object";
  if (value->is_array()) return sentence("a list of ", value->size());
  constexpr std::size_t most = 80;
  const std::string text = value->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

std::string Config::text(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr || !value->is_string()) refuse(key, "must be a text");
  return value->get<std::string>();
}

Index Config::count(std::string_view key) const {
  const auto* value = find(key);
  const double number = value != nullptr && value->is_number() ? value->get<double>() : 0;
  if (!(number >= 1 && number <= most_count && number == std::floor(number)))
    refuse(key, "must be a whole number of at least 1");
  return static_cast<Index>(number);
}

double Config::number(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr || !value->is_number() || !std::isfinite(value->get<double>())) refuse(key, "must be a number");
  return value->get<double>();
}

bool Config::flag(std::string_view key, bool fallback) const {
  const auto* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(key, "must be true or false");
  return value->get<bool>();
}

std::vector<double> Config::numbers(std::string_view key) const {
  const auto* value = find(key);
  std::vector<double> all;
  if (value == nullptr || !value->is_array()) refuse(key, "must be a list of numbers");
  for (const auto& element : *value) {
    if (!element.is_number() || !std::isfinite(element.get<double>())) refuse(key, "must be a list of numbers");
    all.push_back(element.get<double>());
  }
  return all;
}

std::vector<std::string> Config::texts(std::string_view key) const {
  const auto* value = find(key);
  std::vector<std::string> all;
  if (value == nullptr || !value->is_array()) refuse(key, "must be a list of texts");
  for (const auto& element : *value) {
    if (!element.is_string()) refuse(key, "must be a list of texts");
    all.push_back(element.get<std::string>());
  }
  return all;
}

bool Config::is_object(std::string_view key) const {
  const auto* value = find(key);
  return value != nullptr && value->is_object();
}

Config Config::inside(std::string_view key) const {
  if (!is_object(key)) refuse(key, "must be an object");
  return {path_, sentence(inside_, key, "."), *find(key)};
}

}  // namespace annulus

#pragma once
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/base/types.hpp"

namespace annulus {

/// The values of a config.json, or of an object in it. Every getter throws Error (file) that names the file, the key, the value
/// and the rule. A value that is null counts as absent.
class Config {
 public:
  /// Reads FOLDER/config.json.
  explicit Config(const std::string& folder);

  /// The same with values for keys that the file does not have. json: an object.
  Config with_defaults(std::string_view json) const;

  bool has(std::string_view key) const { return find(key) != nullptr; }
  std::string text(std::string_view key) const;
  std::string text(std::string_view key, const std::string& fallback) const { return has(key) ? text(key) : fallback; }
  /// 1 to 2^40.
  Index count(std::string_view key) const;
  Index count(std::string_view key, Index fallback) const { return has(key) ? count(key) : fallback; }
  /// Finite.
  double number(std::string_view key) const;
  double number(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }
  bool flag(std::string_view key, bool fallback) const;
  /// Of each rope_scaling and the like: an object, or absent.
  std::optional<Config> section(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;
  /// An object inside; its keys are named "rope_scaling.factor" in sentences.
  Config inside(std::string_view key) const;
  /// Whether the value is an object.
  bool is_object(std::string_view key) const;

  template <class... Parts>
  [[noreturn]] void refuse(std::string_view key, const Parts&... rule) const {
    throw Error(Failure::file, sentence(path_, ": ", inside_, key, " ", rule..., ": it is ", found(key)));
  }
  const std::string& path() const { return path_; }

 private:
  Config(std::string path, std::string inside, nlohmann::json values)
      : path_(std::move(path)), inside_(std::move(inside)), values_(std::move(values)) {}
  const nlohmann::json* find(std::string_view key) const;
  std::string found(std::string_view key) const;
  std::string path_, inside_;
  nlohmann::json values_;
};

}  // namespace annulus

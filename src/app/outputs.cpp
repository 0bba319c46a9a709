#include "app/outputs.hpp"

#include <filesystem>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

bool same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;  // what cannot be looked at is another file
  const auto whole = [&](const std::string& path) {
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored);
  };
  return whole(a) == whole(b) || std::filesystem::equivalent(a, b, ignored);
}

}  // namespace

void check_outputs(const Settings& settings, std::vector<std::string> inputs,
                   std::initializer_list<std::string_view> outputs) {
  if (settings.has("hardware")) inputs.push_back(settings.text("hardware"));
  if (!settings.config_file().empty()) inputs.push_back(settings.config_file());
  for (const auto* output = outputs.begin(); output != outputs.end(); ++output) {
    if (!settings.has(*output)) continue;
    const std::string& path = settings.text(*output);
    for (const std::string& input : inputs)
      require(!same_file(input, path), settings.name_of(*output), " must not be an input: it is ", input);
    for (const auto* other = outputs.begin(); other != output; ++other)
      require(!settings.has(*other) || !same_file(settings.text(*other), path), settings.name_of(*output),
              " must not be the file of ", settings.name_of(*other), ": both are ", path);
  }
}

}  // namespace annulus::app

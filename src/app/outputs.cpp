#include "app/outputs.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

constexpr std::array<std::string_view, 5> written{"output", "append", "json", "csv", "timeline"};

}  // namespace

bool same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;  // what cannot be looked at is another file
  const auto whole = [&](const std::string& path) {
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored);
  };
  return whole(a) == whole(b) || std::filesystem::equivalent(a, b, ignored);
}

void check_outputs(const Settings& settings, std::vector<std::string> inputs) {
  if (!settings.config_file().empty()) inputs.push_back(settings.config_file());
  std::vector<const Setting*> outputs;
  for (const Setting& setting : settings.all()) {
    if (setting.text.empty()) continue;
    if (setting.option.name == "hardware" || setting.option.name == "input") inputs.push_back(setting.text);
    if (std::ranges::find(written, setting.option.name) != written.end()) outputs.push_back(&setting);
  }
  for (const Setting* output : outputs) {
    const std::string name = settings.name_of(output->option.name), &path = output->text;
    require(path != "-", name, " must name a file: it is - (the standard output is /dev/stdout)");
    for (const std::string& input : inputs)
      require(!same_file(input, path), name, " must not be an input: it is ", input);
    for (const Setting* other : outputs)
      require(other == output || !same_file(other->text, path), name, " must not be the file of ",
              settings.name_of(other->option.name), ": both are ", path);
  }
}

}  // namespace annulus::app

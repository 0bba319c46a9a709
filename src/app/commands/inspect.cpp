#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/store/element.hpp"
#include "annulus/store/input_file.hpp"
#include "app/commands/commands.hpp"
#include "app/contents.hpp"
#include "app/context.hpp"
#include "app/folded_contents.hpp"
#include "app/outputs.hpp"
#include "app/text_draft.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

// What is printed of a dataset behind its name.
std::string line_of(const json& dataset) {
  if (dataset.contains("linked")) return sentence("(is ", dataset["linked"].get<std::string>(), ")");
  if (dataset.contains("refusal")) return sentence("(", dataset["refusal"].get<std::string>(), ")");
  std::string numbers(32, ' ');
  if (const json& summary = dataset["summary"]; !summary.is_null()) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%10.4g %10.4g %10.4g", summary["least"].get<double>(),
                  summary["mean"].get<double>(), summary["largest"].get<double>());
    numbers = text.data();
  }
  std::array<char, 128> shape{};
  std::snprintf(shape.data(), shape.size(), "%-28s ", shape_text(dataset).c_str());
  std::string holds = dataset.value("holds", "");
  if (!dataset["summary"].is_null() && dataset["summary"]["sampled"].get<bool>())
    holds += holds.empty() ? "of sampled rows" : ", of sampled rows";
  return sentence(shape.data(), numbers, "  ", dataset.contains("units") ? short_text(dataset["units"]) : "",
                  holds.empty() ? "" : "  ", holds);
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  check_outputs(settings, settings.positional());
  TextDraft twin(settings.name_of("json"), settings.text("json"));
  const InputFile file(settings.positional().front());
  json out{{"file", file.path()}, {"attributes", attributes_of(file)}, {"datasets", json::array()}};
  std::printf("%s\n", file.path().c_str());
  for (const auto& [name, value] : out["attributes"].items())
    std::printf("  %-18s %s\n", name.c_str(), short_text(value).c_str());
  std::printf("\n  %-42s %-28s %10s %10s %10s  %s\n", "dataset", "shape", "least", "mean", "largest", "units");
  visit_datasets(file, [&](const json& dataset) { out["datasets"].push_back(dataset); });
  const auto all = out["datasets"].get<std::vector<json>>();
  for (const json& dataset : settings.flag("all") ? all : fold_layers(all))
    if (dataset.contains("folded")) std::printf("  %s\n", dataset["folded"].get<std::string>().c_str());
    else std::printf("  %-42s %s\n", dataset["path"].get<std::string>().c_str(), line_of(dataset).c_str());
  for (const char* name : {"passages/text"}) {
    if (!file.has(name)) continue;
    const auto lines = file.read_texts(name);
    std::printf("\n  passages that occur twice, longest first (%zu)\n", lines.size());
    for (std::size_t i = 0; i < std::min<std::size_t>(lines.size(), 10); ++i) std::printf("    %s\n", lines[i].c_str());
    if (lines.size() > 10) std::printf("    ... %zu more in /passages\n", lines.size() - 10);
  }
  twin.commit(text_of(out, 2) + "\n");
  return 0;
}

}  // namespace

Command inspect_command() {
  return {.name = "inspect",
          .summary = "a result at the terminal: attributes, datasets, ranges, passages",
          .arguments = {"FILE.h5", 1, 1},
          .options = {{.name = "all",
                       .group = "Output",
                       .help = "every layer's datasets, also where layers hold the same as an earlier one"},
                      {.name = "json", .value = "FILE", .group = "Output", .help = "all datasets, for machines"}},
          .examples = {"annulus inspect results/demo.h5", "annulus inspect qkv.h5",
                       "annulus inspect out.h5 --json out.json"},
          .run = run};
}

}  // namespace annulus::app

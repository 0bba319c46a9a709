#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/store/cache_file.hpp"
#include "annulus/store/input_file.hpp"
#include "app/commands/commands.hpp"
#include "app/context.hpp"
#include "app/outputs.hpp"
#include "app/text_draft.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

json to_json(const Value& value) {
  return std::visit([](const auto& v) { return json(v); }, value);
}

std::string short_text(const json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (const auto line = text.find('\n'); line != text.npos) text = text.substr(0, line) + " ...";
  constexpr std::size_t most = 100;
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

// Least, mean and largest of at most a million elements spread over the dataset.
template <class File>
json summary_of(const File& file, const std::string& name, const annulus::Shape& shape) {
  const auto type = dtype_of(shape.element);
  if (!type || shape.dims.empty() || shape.dims.size() > 3 || shape.elements() == 0) return nullptr;
  constexpr Index most_elements = 1'000'000;
  const Index width = shape.elements() / shape.dims[0],
              rows = std::clamp<Index>(most_elements / width, 1, shape.dims[0]);
  const Index stride = shape.dims[0] / rows;
  CpuDevice cpu;
  const Index heads = shape.dims.size() > 1 ? shape.dims[1] : 1, channels = shape.dims.size() > 2 ? shape.dims[2] : 1;
  const Array values(cpu, DType::f32, rows, heads, channels);
  const annulus::Run run{0, rows, stride};
  if (shape.dims.size() == 1) return nullptr;
  file.read_rows(name, {&run, 1}, values);
  double least = INFINITY, largest = -INFINITY, sum = 0;
  Index finite = 0, nan = 0;
  for (float x : values.elements<float>()) {
    nan += std::isnan(x) ? 1 : 0;
    if (!std::isfinite(x)) continue;
    least = std::min<double>(least, x);
    largest = std::max<double>(largest, x);
    sum += x;
    ++finite;
  }
  if (finite == 0) return nullptr;
  return {{"least", least},
          {"mean", sum / static_cast<double>(finite)},
          {"largest", largest},
          {"not_a_number", nan},
          {"sampled", stride > 1}};
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  check_outputs(settings, settings.positional());
  TextDraft twin(settings.name_of("json"), settings.text("json"));
  const InputFile file(settings.positional().front());
  std::optional<CacheFile> cache;
  if (file.attribute("/", "schema") == Value("annulus-cache")) cache.emplace(file.path());
  json out{{"file", file.path()}, {"attributes", json::object()}, {"datasets", json::array()}};
  std::printf("%s\n", file.path().c_str());
  for (const auto& [name, value] : file.attributes("/")) {
    out["attributes"][name] = to_json(value);
    std::printf("  %-18s %s\n", name.c_str(), short_text(out["attributes"][name]).c_str());
  }
  std::printf("\n  %-42s %-28s %10s %10s %10s  %s\n", "dataset", "shape", "least", "mean", "largest", "units");
  for (const auto& entry : file.tree()) {
    if (!entry.dataset) continue;
    const bool cached = cache && (entry.path == "k" || entry.path == "v");  // rows of other files
    const annulus::Shape shape = cached ? cache->shape(entry.path) : file.shape(entry.path);
    const auto units = file.attribute(entry.path, "units");
    json dataset{{"path", entry.path},
                 {"shape", shape.dims},
                 {"element", name_of(shape.element)},
                 {"summary", cached ? summary_of(*cache, entry.path, shape) : summary_of(file, entry.path, shape)}};
    if (units) dataset["units"] = to_json(*units);
    const json& sum = dataset["summary"];
    const std::string unit = units ? short_text(to_json(*units)) : "";
    if (sum.is_null()) {
      std::printf("  %-42s %-28s %10s %10s %10s  %s\n", entry.path.c_str(), text_of(shape).c_str(), "", "", "",
                  unit.c_str());
    } else {
      std::printf("  %-42s %-28s %10.4g %10.4g %10.4g  %s%s\n", entry.path.c_str(), text_of(shape).c_str(),
                  sum["least"].get<double>(), sum["mean"].get<double>(), sum["largest"].get<double>(), unit.c_str(),
                  sum["not_a_number"].get<Index>() > 0 ? "  holds NaN" : "");
    }
    out["datasets"].push_back(std::move(dataset));
  }
  for (const char* name : {"passages/text"}) {
    if (!file.has(name)) continue;
    const auto lines = file.read_texts(name);
    std::printf("\n  passages that occur twice, longest first (%zu)\n", lines.size());
    for (std::size_t i = 0; i < std::min<std::size_t>(lines.size(), 10); ++i) std::printf("    %s\n", lines[i].c_str());
    if (lines.size() > 10) std::printf("    ... %zu more in /passages\n", lines.size() - 10);
  }
  twin.commit(out.dump(2) + "\n");
  return 0;
}

}  // namespace

Command inspect_command() {
  return {.name = "inspect",
          .summary = "a result at the terminal: attributes, datasets, ranges, passages",
          .arguments = {"FILE.h5", 1, 1},
          .options = {{.name = "json", .value = "FILE", .group = "Output", .help = "the same for machines"}},
          .examples = {"annulus inspect results/demo.h5", "annulus inspect qkv.h5",
                       "annulus inspect out.h5 --json out.json"},
          .run = run};
}

}  // namespace annulus::app

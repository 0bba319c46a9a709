#include <algorithm>
#include <array>
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

// Files may hold names and texts that are no UTF-8.
std::string text_of(const json& value, int indent = -1) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string short_text(const json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : text_of(value);
  if (const auto line = text.find('\n'); line != text.npos) text = text.substr(0, line) + " ...";
  constexpr std::size_t most = 100;
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

// Of finite elements; and how many others there are.
struct Summary {
  double least = INFINITY, largest = -INFINITY, sum = 0;
  Index finite = 0, nan = 0, above = 0, below = 0;

  void add(double x) {
    nan += std::isnan(x) ? 1 : 0;
    above += x == INFINITY ? 1 : 0;
    below += x == -INFINITY ? 1 : 0;
    if (!std::isfinite(x)) return;
    least = std::min(least, x);
    largest = std::max(largest, x);
    sum += x;
    ++finite;
  }
  std::string others() const {
    std::string text;
    for (const auto& [count, name] : {std::pair{nan, "NaN"}, std::pair{above, "inf"}, std::pair{below, "-inf"}})
      if (count > 0) text += sentence(text.empty() ? "holds " : ", ", name);
    return text;
  }
};

// Of rows spread over the dataset, of about a million elements together and at most 64 MiB at a time.
template <class File>
std::optional<Summary> summary_of(const File& file, const std::string& name, const annulus::Shape& shape, Index rows) {
  if (!dtype_of(shape.element) || shape.dims.size() < 2 || shape.dims.size() > 3 || rows == 0) return std::nullopt;
  constexpr Index most_at_once = Index{1} << 23;
  const Index heads = shape.dims[1], channels = shape.dims.size() > 2 ? shape.dims[2] : 1,
              at_once = std::clamp<Index>(most_at_once / (heads * channels), 1, rows), stride = shape.dims[0] / rows;
  if (heads * channels > most_at_once) return std::nullopt;
  CpuDevice cpu;
  const Array values(cpu, DType::f64, at_once, heads, channels);
  Summary summary;
  for (Index row = 0; row < rows; row += at_once) {
    const annulus::Run run{row * stride, std::min(at_once, rows - row), stride};
    file.read_rows(name, {&run, 1}, values.rows().slice(0, run.count));
    for (const double x : values.elements<double>().first(static_cast<std::size_t>(run.count * heads * channels)))
      summary.add(x);
  }
  return summary;
}

// One dataset: what is printed of it, and its twin. Throws Error (file) when it cannot be read.
template <class File>
json dataset_line(const File& file, const InputFile& attributes, const std::string& path, std::string& line) {
  const annulus::Shape shape = file.shape(path);
  constexpr Index most_elements = 1'000'000;
  const Index rows = shape.dims.empty() || shape.elements() == 0
                         ? 0
                         : std::clamp<Index>(most_elements / (shape.elements() / shape.dims[0]), 1, shape.dims[0]);
  const auto units = attributes.attribute(path, "units");
  json dataset{{"path", path}, {"shape", shape.dims}, {"element", name_of(shape.element)}, {"summary", nullptr}};
  if (units) dataset["units"] = to_json(*units);
  const auto summary = summary_of(file, path, shape, rows);
  std::string numbers(32, ' ');
  if (summary && summary->finite > 0) {
    const double mean = summary->sum / static_cast<double>(summary->finite);
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%10.4g %10.4g %10.4g", summary->least, mean, summary->largest);
    numbers = text.data();
    dataset["summary"] = {{"least", summary->least},        {"mean", mean},
                          {"largest", summary->largest},    {"not_a_number", summary->nan},
                          {"infinite", summary->above},     {"minus_infinite", summary->below},
                          {"sampled", rows < shape.dims[0]}};
  }
  std::array<char, 128> head{};
  std::snprintf(head.data(), head.size(), "%-28s ", text_of(shape).c_str());
  const std::string others = summary ? summary->others() : "";
  line = sentence(head.data(), numbers, "  ", units ? short_text(to_json(*units)) : "", others.empty() ? "" : "  ",
                  others);
  return dataset;
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
    if (entry.group || entry.bare_scale) continue;
    if (entry.dataset && !entry.linked.empty()) {
      out["datasets"].push_back({{"path", entry.path}, {"linked", entry.linked}});
      std::printf("  %-42s %s\n", entry.path.c_str(), sentence("(is ", entry.linked, ")").c_str());
      continue;
    }
    const bool cached = cache && (entry.path == "k" || entry.path == "v");  // rows of other files
    std::string line;
    try {
      out["datasets"].push_back(cached ? dataset_line(*cache, file, entry.path, line)
                                       : dataset_line(file, file, entry.path, line));
    } catch (const Error& e) {
      if (e.failure() != Failure::file) throw;
      line = sentence("(", e.what(), ")");
      out["datasets"].push_back({{"path", entry.path}, {"refusal", e.what()}});
    }
    std::printf("  %-42s %s\n", entry.path.c_str(), line.c_str());
  }
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
          .options = {{.name = "json", .value = "FILE", .group = "Output", .help = "the same for machines"}},
          .examples = {"annulus inspect results/demo.h5", "annulus inspect qkv.h5",
                       "annulus inspect out.h5 --json out.json"},
          .run = run};
}

}  // namespace annulus::app

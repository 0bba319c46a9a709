#include "app/contents.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/store/cache_file.hpp"

namespace annulus::app {

using nlohmann::json;

namespace {

json to_json(const Value& value) {
  return std::visit([](const auto& v) { return json(v); }, value);
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
              at_once = std::clamp<Index>(most_at_once / (heads * channels), 1, rows), stride = ceil_div(shape.dims[0], rows);
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

// One dataset of a file, or of the cache that the file stands for. Throws Error (file) when it cannot be read.
template <class File>
json dataset_of(const File& file, const InputFile& attributes, const std::string& path) {
  const annulus::Shape shape = file.shape(path);
  constexpr Index most_elements = 1'000'000;
  Index rows = 0;
  if (!shape.dims.empty() && shape.elements() > 0) {  // evenly over all
    const Index most = std::clamp<Index>(most_elements / (shape.elements() / shape.dims[0]), 1, shape.dims[0]);
    rows = ceil_div(shape.dims[0], ceil_div(shape.dims[0], most));
  }
  json dataset{{"path", path}, {"shape", shape.dims}, {"element", name_of(shape.element)}, {"summary", nullptr}};
  if (const auto units = attributes.attribute(path, "units")) dataset["units"] = to_json(*units);
  const auto summary = summary_of(file, path, shape, rows);
  if (!summary) return dataset;
  if (const std::string others = summary->others(); !others.empty()) dataset["holds"] = others;
  if (summary->finite > 0)
    dataset["summary"] = {
        {"least", summary->least},        {"mean", summary->sum / static_cast<double>(summary->finite)},
        {"largest", summary->largest},    {"not_a_number", summary->nan},
        {"infinite", summary->above},     {"minus_infinite", summary->below},
        {"sampled", rows < shape.dims[0]}};
  return dataset;
}

}  // namespace

std::string shape_text(const json& dataset) {
  std::string text = "[";
  for (const json& dim : dataset["shape"]) text += sentence(text.size() > 1 ? ", " : "", dim.get<Index>());
  return sentence(text, "] ", dataset["element"].get<std::string>());
}

std::string text_of(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string short_text(const json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : text_of(value);
  if (const auto line = text.find('\n'); line != text.npos) text = text.substr(0, line) + " ...";
  constexpr std::size_t most = 100;
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

json attributes_of(const InputFile& file) {
  json out = json::object();
  for (const auto& [name, value] : file.attributes("/")) out[name] = to_json(value);
  return out;
}

void visit_datasets(const InputFile& file, const std::function<void(const json&)>& visit) {
  std::optional<CacheFile> cache;
  if (file.attribute("/", "schema") == Value("annulus-cache")) cache.emplace(file.path());
  for (const auto& entry : file.tree()) {
    if (entry.group || entry.bare_scale) continue;
    if (entry.dataset && !entry.linked.empty()) {
      visit({{"path", entry.path}, {"linked", entry.linked}});
      continue;
    }
    const bool cached = cache && (entry.path == "k" || entry.path == "v");  // rows of other files
    json dataset;
    try {
      dataset = cached ? dataset_of(*cache, file, entry.path) : dataset_of(file, file, entry.path);
    } catch (const Error& e) {
      if (e.failure() != Failure::file) throw;
      dataset = {{"path", entry.path}, {"refusal", e.what()}};
    }
    visit(dataset);
  }
}

}  // namespace annulus::app

#include <algorithm>
#include <filesystem>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/contents.hpp"
#include "app/folded_contents.hpp"
#include "app/report/excerpt.hpp"
#include "app/report/layered.hpp"
#include "app/report/report.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

std::string plain(const json& value) { return value.is_string() ? value.get<std::string>() : text_of(value); }

// The attributes that people look for first, by the names people have for them.
std::vector<std::pair<std::string, std::string>> facts_of(const InputFile& file, const json& attributes) {
  std::vector<std::pair<std::string, std::string>> facts;
  for (const char* name : {"tokens/ids", "tokens/time_s", "out", "q"})
    if (file.has(name) && !file.shape(name).dims.empty()) {
      facts.emplace_back("tokens", grouped(file.shape(name).dims.front()));
      break;
    }
  for (const auto& [name, label] : {std::pair{"mask", "mask"},
                                    {"dtype", "numbers"},
                                    {"model", "model"},
                                    {"model_kind", "kind of model"},
                                    {"strategy", "strategy"},
                                    {"partition", "partition"},
                                    {"ranks", "ranks"},
                                    {"threads_per_rank", "threads per rank"},
                                    {"kernel", "kernel"},
                                    {"device", "device"}})
    if (attributes.contains(name)) facts.emplace_back(label, plain(attributes[name]));
  if (attributes.contains("created")) facts.emplace_back("made", readable_time(plain(attributes["created"])));
  return facts;
}

Table contents_of(const InputFile& file) {
  Table table{{"dataset", "shape", "least", "mean", "largest", "units", "note"}};
  std::vector<json> datasets;
  visit_datasets(file, [&](const json& dataset) { datasets.push_back(dataset); });
  for (const json& dataset : fold_layers(datasets)) {
    if (dataset.contains("folded")) {
      table.rows.push_back({dataset["folded"].get<std::string>(), "", "", "", "", "", ""});
      continue;
    }
    std::vector<std::string> row{dataset["path"].get<std::string>()};
    if (dataset.contains("linked") || dataset.contains("refusal")) {
      row.insert(row.end(), {"", "", "", "", ""});
      row.push_back(dataset.contains("linked") ? sentence("is ", dataset["linked"].get<std::string>())
                                               : dataset["refusal"].get<std::string>());
    } else {
      const json& summary = dataset["summary"];
      row.push_back(shape_text(dataset));
      for (const char* number : {"least", "mean", "largest"})
        row.push_back(summary.is_null() ? "" : readable(summary[number].get<double>()));
      row.push_back(dataset.contains("units") ? short_text(dataset["units"]) : "");
      const bool sampled = !summary.is_null() && summary["sampled"].get<bool>();
      const std::string holds = dataset.value("holds", "");
      row.push_back(sentence(holds, sampled && !holds.empty() ? "; " : "", sampled ? "of sampled rows" : ""));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

constexpr const char* no_traces =
    "There are no attention traces in this file: --trace summary, standard or full of run and attend keeps them.";

// "Of all heads, head 3 looks most at the previous token (0.93), and head 4 looks farthest (512)."
std::string reason_text(const ShownTraces& traces) {
  std::string text;
  for (std::size_t i = 0; i < traces.why.size(); ++i)
    text += sentence(i == 0 ? "Of all heads, " : i + 1 < traces.why.size() ? ", " : ", and ", traces.why[i]);
  return sentence(text.empty() ? "" : text + ". ", "--layers and --heads show others.");
}

// A result with one attention.
void add_one(const InputFile& file, const std::optional<Words>& words, const ReportChoice& choice, Page& page) {
  std::vector<ShownTraces> shown;
  for (const char* group : {"trace", "layers/000/attention"})
    if (file.has(sentence(group, "/entropy"))) shown = {{.group = group, .heads = choice.heads}};
  for (const Index layer : choice.layers)
    require(layer == 0 && !shown.empty() && shown[0].group != "trace",
            "--layers must name layers of the result that have traces: ", file.path(), " has no layer ", layer);
  add_reuse(file, words, page);
  if (words) add_excerpt(file, shown, *words, choice, page);
  for (const ShownTraces& traces : shown) {
    add_received(file, traces, words, page);
    add_attention(file, traces, page);
  }
  if (shown.empty()) page.paragraph(no_traces);
}

// A result of a model with many layers.
void add_layers(const InputFile& file, const std::optional<Words>& words, const ReportChoice& choice, Page& page) {
  const std::vector<Layer> layers = layers_of(file);
  const HeadMeans means = head_means(file, traced_layers(file, layers));
  const std::vector<ShownTraces> shown = shown_layers(means, choice);
  add_next_tokens(file, words, choice, page);
  add_heads(file, means, page);
  add_depth(file, layers, means, page);
  if (means.layers.empty()) page.paragraph(no_traces);
  if (words) add_excerpt(file, shown, *words, choice, page);
  for (const ShownTraces& traces : shown) {
    page.section(sentence("Layer ", traces.layer));
    page.paragraph(reason_text(traces));
    add_attention(file, traces, page);
    add_received(file, traces, words, page);
  }
}

}  // namespace

void add_result(const InputFile& file, const ReportChoice& choice, Page& page) {
  const json attributes = attributes_of(file);
  const std::string name = std::filesystem::path(file.path()).filename().string();
  page.chapter(name, attributes.contains("command_line") ? plain(attributes["command_line"]) : file.path());
  if (attributes.contains("status") && plain(attributes["status"]) != "complete")
    page.html("<p class=\"warning\">This result is not complete: the job that made it was stopped.</p>\n");
  page.facts(facts_of(file, attributes));
  const std::optional<Words> words = Words::of(file);
  if (attributes.contains("model_kind") || layers_of(file).size() > 1) add_layers(file, words, choice, page);
  else add_one(file, words, choice, page);
  page.section("What is in the file");
  page.table(contents_of(file));
  Table origin{{"attribute", "value"}};
  for (const auto& [key, value] : attributes.items())
    if (key != "configuration") origin.rows.push_back({key, plain(value)});
  page.folded("Where it comes from: all attributes", origin);
  if (attributes.contains("configuration")) page.folded("Configuration", plain(attributes["configuration"]));
}

}  // namespace annulus::app

#include <algorithm>
#include <filesystem>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/contents.hpp"
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
  visit_datasets(file, [&](const json& dataset) {
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
  });
  return table;
}

}  // namespace

std::vector<Index> shown_heads(const ReportChoice& choice, Index count) {
  constexpr Index usual = 8;
  std::vector<Index> heads = choice.heads;
  for (Index head = 0; choice.heads.empty() && head < std::min(count, usual); ++head) heads.push_back(head);
  for (const Index head : heads)
    require(head < count, "--heads must name heads of the result, 0 to ", count - 1, ": it names ", head);
  return heads;
}

void add_result(const InputFile& file, const ReportChoice& choice, Page& page) {
  const json attributes = attributes_of(file);
  const std::string name = std::filesystem::path(file.path()).filename().string();
  page.chapter(name, attributes.contains("command_line") ? plain(attributes["command_line"]) : file.path());
  if (attributes.contains("status") && plain(attributes["status"]) != "complete")
    page.html("<p class=\"warning\">This result is not complete: the job that made it was stopped.</p>\n");
  page.facts(facts_of(file, attributes));
  std::string traces;
  for (const char* group : {"trace", "layers/000/attention"})
    if (file.has(sentence(group, "/entropy"))) traces = group;
  add_findings(file, traces, choice, page);
  if (!traces.empty()) add_attention(file, traces, choice, page);
  else
    page.paragraph(
        "There are no attention traces in this file: --trace summary, standard or full of run and attend keeps them.");
  page.section("What is in the file");
  page.table(contents_of(file));
  Table origin{{"attribute", "value"}};
  for (const auto& [key, value] : attributes.items())
    if (key != "configuration") origin.rows.push_back({key, plain(value)});
  page.folded("Where it comes from: all attributes", origin);
  if (attributes.contains("configuration")) page.folded("Configuration", plain(attributes["configuration"]));
}

}  // namespace annulus::app

#include <algorithm>
#include <cmath>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/report/report.hpp"
#include "app/report/table_rows.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

double milliseconds(const json& row) { return 1e3 * value_of(row, "seconds"); }

std::string text_in(const json& object, const char* name) {
  const json value = object.value(name, json());
  return value.is_null() ? "" : cell_of(value);
}

std::string duration_in(const json& object, const char* name) {
  const double seconds = value_of(object, name);
  return std::isnan(seconds) ? "-" : duration_text(seconds);
}

std::string bytes_in(const json& object, const char* name) {
  const double bytes = value_of(object, name);
  return std::isnan(bytes) ? "-" : bytes_text(bytes);
}

TableRows legal_rows(const json& rows) {
  TableRows legal;
  for (const json& row : rows)
    if (row.is_object() && row.value("legal", false) && value_of(row, "seconds") > 0) legal.push_back(row);
  return legal;
}

void add_ranks(const json& document, Page& page) {
  const TableRows legal = legal_rows(document["by_ranks"]);
  page.section("How many ranks");
  if (document.contains("answer")) page.paragraph(text_in(document["answer"], "sentence") + ".");
  Table table{{"ranks", "nodes", "strategy", "grid", "partition", "time", "speed-up", "efficiency", "exposed",
               "network", "memory", "fits"}};
  for (const json& row : document["by_ranks"]) {
    if (!row.is_object() || !row.value("legal", false)) continue;
    const json fits = row.value("fits", json());
    table.rows.push_back({text_in(row, "ranks"), text_in(row, "node_count"), text_in(row, "strategy"),
                          text_in(row, "grid"), text_in(row, "partition"), duration_in(row, "seconds"),
                          readable(value_of(row, "speedup")), percent(100 * value_of(row, "efficiency")),
                          percent(value_of(row, "exposed_percent")), bytes_in(row, "bytes_between_nodes"),
                          bytes_in(row, "memory_bytes_per_rank"),
                          fits.is_boolean() ? (fits.get<bool>() ? "yes" : "no") : "-"});
  }
  page.table(table);
  page.paragraph("Network: bytes between nodes, of all ranks. Memory: of one rank.");
  if (legal.empty()) return;
  Chart time{.x = doubling("ranks", legal, field("ranks")),
             .y = {.label = "time, ms", .base = 10},
             .marks = Chart::Marks::linked_points},
      efficiency{.x = time.x, .y = {"efficiency", 0}, .marks = Chart::Marks::linked_points};
  time.curves = {curve_of("", legal, field("ranks"), milliseconds)};
  time.guides = {curve_of("", legal, field("ranks"), [&](const json& row) {
    return milliseconds(legal.front()) * value_of(legal.front(), "ranks") / value_of(row, "ranks");
  })};
  const auto [least, largest] = std::ranges::minmax_element(legal, {}, milliseconds);
  time.y.least = std::min(milliseconds(*least), time.guides[0].y.back()) / 1.3;
  time.y.largest = milliseconds(*largest) * 1.3;
  efficiency.curves = {curve_of("", legal, field("ranks"), field("efficiency"))};
  efficiency.guides = {curve_of("", legal, field("ranks"), [](const json&) { return 1; })};
  page.figure({.name = "ranks",
               .caption = "Predicted time of the best plan for each number of ranks, and what is left of the speed of "
                          "the fewest; dashed: "
                          "an even share of the work and nothing else.",
               .columns = 2,
               .panels = {std::move(time), std::move(efficiency)}});
}

void add_strategies(const json& document, Page& page) {
  TableRows legal = legal_rows(document["strategies"]);
  page.section("Strategies for this request");
  Table table{{"strategy", "grid", "time", "exposed", "inside nodes", "between nodes", "memory per rank", "steps", ""}};
  for (const json& row : document["strategies"]) {
    if (!row.is_object()) continue;
    if (!row.value("legal", false)) {
      table.rows.push_back({text_in(row, "name"), "", "", "", "", "", "", "", text_in(row, "verdict")});
      continue;
    }
    table.rows.push_back({text_in(row, "name"), text_in(row, "grid"), duration_in(row, "seconds"),
                          percent(value_of(row, "exposed_percent")), bytes_in(row, "bytes_inside_nodes"),
                          bytes_in(row, "bytes_between_nodes"), bytes_in(row, "memory_bytes_per_rank"),
                          text_in(row, "steps"), row.value("chosen", false) ? "this plan" : ""});
  }
  page.table(table);
  if (document.contains("fastest")) page.paragraph("Fastest: " + text_in(document["fastest"], "reason") + ".");
  if (legal.empty()) return;
  Chart chart{.x = {.least = -0.6, .largest = static_cast<double>(legal.size()) - 0.4},
              .y = {"time, ms", 0},
              .marks = Chart::Marks::bars};
  Curve all{"exchange and waiting", {}, {}}, compute{"computing", {}, {}};
  for (std::size_t i = 0; i < legal.size(); ++i) {
    const auto place = static_cast<double>(i);
    chart.x.ticks.emplace_back(place, text_in(legal[i], "name"));
    all.x.push_back(place);
    all.y.push_back(milliseconds(legal[i]));
    compute.x.push_back(place);
    compute.y.push_back(1e3 * value_of(legal[i], "compute_seconds"));
  }
  chart.curves = {std::move(all), std::move(compute)};  // the second one stands in front of the first
  page.figure({.name = "strategies",
               .caption = "Predicted time: what the busiest rank computes, and what is exposed on top of it.",
               .height = 260,
               .panels = {std::move(chart)}});
}

// Which seat works how much in which step.
void add_visits(const json& document, Page& page) {
  const json visits = document.value("visits", json::object()).value("by_seat_and_step", json::array());
  if (visits.empty()) return;
  HeatMap map{.x = {"step"}, .y = {"seat"}, .rows = static_cast<Index>(visits.size())};
  for (const json& row : visits) map.columns = std::max(map.columns, static_cast<Index>(row.size()));
  map.values.resize(static_cast<std::size_t>(map.rows * map.columns));
  map.fullest = 0;
  for (std::size_t seat = 0; seat < visits.size(); ++seat)
    for (std::size_t step = 0; step < visits[seat].size(); ++step) {
      const double pairs = value_of(visits[seat][step], "pairs");
      map.values[seat * static_cast<std::size_t>(map.columns) + step] = pairs;
      map.fullest = std::max(map.fullest, pairs);
    }
  if (!(map.fullest > 0)) return;
  for (auto* side : {&map.x, &map.y}) {  // in the middle of cells
    const Index cells = side == &map.x ? map.columns : map.rows, each = std::max<Index>(1, ceil_div(cells, 8));
    for (Index i = 0; i < cells; i += each) side->ticks.emplace_back(static_cast<double>(i) + 0.5, std::to_string(i));
  }
  map.faintest = 0;
  map.logarithmic = false;
  page.figure({.name = "work",
               .caption = "Visible pairs of queries and keys that each seat computes in each step: even columns are "
                          "balanced steps.",
               .width = 560,
               .height = 360,
               .panels = {std::move(map)}});
}

}  // namespace

void add_plan(const json& document, Page& page) {
  page.chapter(sentence("annulus plan, ", text_in(document, "mask"), ", ", text_in(document, "pass")),
               text_in(document, "prices"));
  std::vector<std::pair<std::string, std::string>> facts;
  for (const auto& [name, label] : {std::pair{"tokens", "tokens"},
                                    {"keys", "keys"},
                                    {"query_heads", "query heads"},
                                    {"kv_heads", "key/value heads"},
                                    {"channels", "channels"},
                                    {"dtype", "numbers"},
                                    {"ranks", "ranks"},
                                    {"strategy", "strategy"},
                                    {"grid", "grid"},
                                    {"partition", "partition"}})
    if (document.contains(name)) facts.emplace_back(label, cell_of(document[name]));
  if (document.contains("seconds")) facts.emplace_back("predicted time", duration_in(document, "seconds"));
  if (document.contains("memory_bytes_per_rank"))
    facts.emplace_back("memory per rank", bytes_in(document, "memory_bytes_per_rank"));
  page.facts(facts);
  if (document.contains("reason")) page.paragraph("Why this plan: " + text_in(document, "reason") + ".");
  if (document.value("by_ranks", json()).is_array()) add_ranks(document, page);
  if (document.value("strategies", json()).is_array()) add_strategies(document, page);
  add_visits(document, page);
}

}  // namespace annulus::app

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/report/report.hpp"
#include "app/report/table_rows.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

void add_kernels(const TableRows& rows, Page& page) {
  for (const auto& [name, some] : split(rows, {"trace", "dtype"})) {
    Chart chart = bars(some, {"pass", "mask", "channels", "query_heads"}, {"tokens", "kernel"},
                       {"% of the peak", 0, 100}, [](const json& row) { return 100 * value_of(row, "fraction"); });
    chart.title = name;
    page.figure({.name = "kernel",
                 .caption = "Share of the processor's own peak, measured in the same second.",
                 .height = 230,
                 .panels = {std::move(chart)}});
  }
}

void add_blocks(const TableRows& rows, Page& page) {
  Chart chart{.x = doubling("keys of a block", rows, field("block_tokens")),
              .y = {"% of the whole", 0},
              .marks = Chart::Marks::linked_points};
  for (const auto& [name, some] : split(rows, {"tokens", "mask", "dtype", "heads"}))
    chart.curves.push_back(curve_of(name, some, field("block_tokens"), field("percent_of_whole")));
  page.figure({.name = "blocks",
               .caption = "Rate with keys in blocks, over the rate with all keys at once.",
               .height = 260,
               .panels = {std::move(chart)}});
}

void add_strategies(const TableRows& rows, Page& page) {
  const bool predicted =
      std::ranges::any_of(rows, [](const json& row) { return row.value("predicted_ms", json()).is_number(); });
  for (const auto& [name, some] : split(rows, {"tokens", "ranks", "mask", "dtype", "heads"})) {
    const bool twice = split(some, {"strategy"}).size() < some.size();
    Chart chart = bars(
        some, twice ? std::vector<std::string>{"strategy", "grid", "partition"} : std::vector<std::string>{"strategy"},
        {}, {"median, ms", 0}, field("median_ms"));
    chart.title = name;
    if (predicted) {
      chart.curves.front().name = "measured";
      Curve line{"predicted", {}, {}};  // a level across each bar
      for (std::size_t i = 0; i < some.size(); ++i)
        for (const double side : {-0.5, 0.5, static_cast<double>(NAN)}) {
          line.x.push_back(chart.curves.front().x[i] + side * chart.bar_width);
          line.y.push_back(std::isnan(side) ? NAN : value_of(some[i], "predicted_ms"));
        }
      chart.guides.push_back(std::move(line));
    }
    page.figure({.name = "strategies",
                 .caption = "Time of a pass; bars from the fastest to the slowest repetition.",
                 .height = 280,
                 .panels = {std::move(chart)}});
  }
}

double rate_of(const json& row) { return value_of(row, "tflops_per_rank") * value_of(row, "ranks"); }

// Speed-up, or that per rank: rates over that of the group's first row.
Chart scaling(const TableRows& rows, const std::vector<std::pair<std::string, TableRows>>& groups, bool per_rank) {
  Chart chart{.x = doubling("ranks", rows, field("ranks")),
              .y = per_rank ? Axis{"efficiency", 0} : Axis{.label = "speed-up", .base = 2},
              .marks = Chart::Marks::linked_points};
  const auto ranks = [](const json& row) { return value_of(row, "ranks"); };
  const double least = ranks(*std::ranges::min_element(rows, {}, ranks));
  for (const auto& [name, some] : groups) {
    const auto scaled = [&, &fewest = *std::ranges::min_element(some, {}, ranks)](const json& row, double rate) {
      return rate / rate_of(fewest) / (per_rank ? ranks(row) / ranks(fewest) : 1);
    };
    Curve curve = curve_of(name, some, field("ranks"), [&](const json& row) { return scaled(row, rate_of(row)); });
    for (const json& row : some) {
      const double median = value_of(row, "median_ms");
      curve.low.push_back(scaled(row, rate_of(row) * median / value_of(row, "max_ms")));
      curve.high.push_back(scaled(row, rate_of(row) * median / value_of(row, "min_ms")));
    }
    chart.curves.push_back(std::move(curve));
  }
  chart.guides.push_back(curve_of("ideal", rows, field("ranks"),
                                  [&](const json& row) { return per_rank ? 1 : value_of(row, "ranks") / least; }));
  if (!per_rank) chart.y.ticks = chart.x.ticks;
  return chart;
}

void add_prediction(const TableRows& rows, const std::vector<std::pair<std::string, TableRows>>& groups, Page& page) {
  Chart chart{.x = {.label = "predicted, ms", .base = 10},
              .y = {.label = "measured, ms", .base = 10},
              .marks = Chart::Marks::points};
  double least = INFINITY, largest = 0;
  for (const json& row : rows)
    for (const char* name : {"predicted_ms", "min_ms", "max_ms"}) {
      const double value = value_of(row, name);
      if (!std::isfinite(value) || value <= 0) continue;
      least = std::min(least, value);
      largest = std::max(largest, value);
    }
  if (largest == 0 ||
      std::ranges::none_of(rows, [](const json& row) { return std::isfinite(value_of(row, "predicted_ms")); }))
    return;
  least /= 1.3;
  largest *= 1.3;
  for (Axis* axis : {&chart.x, &chart.y}) axis->least = least, axis->largest = largest;
  for (const auto& [name, some] : groups) {
    Curve curve = curve_of(name, some, field("predicted_ms"), field("median_ms"));
    for (const json& row : some)
      curve.low.push_back(value_of(row, "min_ms")), curve.high.push_back(value_of(row, "max_ms"));
    chart.curves.push_back(std::move(curve));
  }
  for (const auto& [times, name] : {std::pair{1.0, "as predicted"}, {0.7, "0.7 and 1.4 times"}, {1.4, ""}})
    chart.guides.push_back({name, {least, largest}, {times * least, times * largest}});
  page.figure({.name = "prediction",
               .caption = "Measured against predicted: median, and bars from the fastest to the slowest repetition.",
               .width = 640,
               .height = 420,
               .panels = {std::move(chart)}});
}

void add_scaling(const TableRows& all, Page& page, bool weak) {
  TableRows rows;
  for (json row : all) {
    if (weak) row["tokens"] = value_of(row, "tokens") / value_of(row, "ranks");
    rows.push_back(std::move(row));
  }
  const auto groups = split(rows, {"tokens", "mask", "dtype", "heads"});
  page.figure({.name = "speedup",
               .caption = "Operations per second over those of the fewest ranks; bars from the slowest to the fastest "
                          "repetition.",
               .width = 640,
               .height = 360,
               .panels = {scaling(rows, groups, false)}});
  page.figure({.name = "efficiency",
               .caption = "Speed-up per rank.",
               .width = 640,
               .height = 300,
               .panels = {scaling(rows, groups, true)}});
}

void add_exchange(const TableRows& rows, Page& page) {
  Figure figure{.name = "exchange",
                .caption = "Messages between neighbours: time of one, and the rate at which bytes arrive.",
                .height = 300,
                .columns = 2};
  for (const auto& [name, label] : {std::pair{"median_us", "median, us"}, {"gb_per_s", "GB/s"}}) {
    Chart chart{
        .x = {.label = "bytes", .base = 2}, .y = {.label = label, .base = 10}, .marks = Chart::Marks::linked_points};
    chart.x.ticks = {{8, "8"}, {1024, "1 Ki"}, {65536, "64 Ki"}, {1 << 20, "1 Mi"}, {1 << 24, "16 Mi"}};
    chart.curves.push_back(curve_of("", rows, field("bytes"), field(name)));
    figure.panels.emplace_back(std::move(chart));
  }
  page.figure(std::move(figure));
}

void add_overlap(const TableRows& rows, Page& page) {
  Chart chart{.x = doubling("tokens", rows, field("tokens")),
              .y = {.label = "ms", .base = 10},
              .marks = Chart::Marks::linked_points};
  for (const auto& [name, label] : {std::pair{"median_ms", "pass"},
                                    {"compute_ms", "computing"},
                                    {"exchange_ms", "exchange alone"},
                                    {"exposed_ms", "exposed"}})
    chart.curves.push_back(curve_of(label, rows, field("tokens"), field(name)));
  page.figure({.name = "overlap",
               .caption = "A pass beside its parts: what of the exchange is not hidden is exposed.",
               .height = 300,
               .panels = {std::move(chart)}});
}

void add_table(const TableRows& rows, Page& page) {
  std::vector<std::string> columns;
  std::string same;
  std::map<std::string, json> values;  // the first of each name
  for (const json& row : rows)
    for (const auto& [name, value] : row.items()) values.emplace(name, value);
  for (const auto& [name, value] : values) {
    if (value.is_array() || value.is_object()) continue;
    if (varies(rows, name) || rows.size() == 1) columns.push_back(name);
    else same += sentence(same.empty() ? "" : ", ", name, " ", cell_of(value));
  }
  constexpr std::array first{"kernel", "strategy", "partition", "grid",  "dtype",    "pass",
                             "mask",   "ranks",    "tokens",    "bytes", "median_ms"};
  const auto place = [&](const std::string& name) { return std::ranges::find(first, name) - first.begin(); };
  std::ranges::stable_sort(columns, [&](const auto& a, const auto& b) { return place(a) < place(b); });
  Table table{columns};
  for (const json& row : rows) {
    std::vector<std::string>& cells = table.rows.emplace_back();
    for (const std::string& name : columns) cells.push_back(cell_of(row.value(name, json())));
  }
  page.section("All rows");
  if (!same.empty()) page.paragraph("The same in all: " + same + ".");
  page.table(table);
}

}  // namespace

void add_benchmark(const json& document, const std::string& path, Page& page) {
  const auto results = document.find("results");
  require<Failure::file>(
      document.value("benchmark", json()).is_string() && results != document.end() && results->is_array() &&
          std::ranges::all_of(*results, [](const json& row) { return row.is_object(); }),
      path, " must be what bench or plan --json writes: it has neither a benchmark with results nor strategies");
  const auto kind = document["benchmark"].get<std::string>();
  const TableRows rows(results->begin(), results->end());
  const json environment = document.value("environment", json::object()),
             verdict = document.value("verdict", json::object());
  page.chapter(sentence("annulus bench ", kind), cell_of(document.value("command", json(path))));
  std::vector<std::pair<std::string, std::string>> facts;
  if (verdict.is_object() && verdict.contains("passed"))
    facts.emplace_back("verdict", verdict["passed"].is_null() ? "measured"
                                  : verdict["passed"] == true ? "passed"
                                                              : "FAILED");
  if (environment.is_object())
    for (const auto& [name, value] : environment.items())
      if (!value.is_null() && !cell_of(value).empty())
        facts.emplace_back(name, name == "time" ? readable_time(cell_of(value)) : cell_of(value));
  page.facts(facts);
  if (verdict.is_object() && verdict.contains("text")) page.paragraph(cell_of(verdict["text"]) + ".");
  if (rows.empty()) {
    page.paragraph("There are no rows.");
    return;
  }
  if (kind == "kernel") add_kernels(rows, page);
  if (kind == "blocks") add_blocks(rows, page);
  if (kind == "strategies") add_strategies(rows, page);
  if (kind == "strong" || kind == "weak") add_scaling(rows, page, kind == "weak");
  if (kind == "strong" || kind == "weak" || kind == "strategies")
    add_prediction(rows, split(rows, {"tokens", "mask", "dtype"}), page);
  if (kind == "exchange") add_exchange(rows, page);
  if (kind == "overlap") add_overlap(rows, page);
  add_table(rows, page);
  if (document.contains("arguments")) {
    Table arguments{{"option", "value"}};
    for (const auto& [name, value] : document["arguments"].items())
      if (!value.is_null()) arguments.rows.push_back({"--" + name, cell_of(value)});
    page.folded("Options", arguments);
  }
}

}  // namespace annulus::app

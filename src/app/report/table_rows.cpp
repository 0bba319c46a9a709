#include "app/report/table_rows.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/contents.hpp"
#include "app/report/page.hpp"

namespace annulus::app {

using nlohmann::json;

double value_of(const json& row, const std::string& name) {
  const auto found = row.find(name);
  return found != row.end() && found->is_number() ? found->get<double>() : NAN;
}

std::string cell_of(const json& value) {
  if (value.is_null()) return "-";
  if (value.is_number()) return readable(value.get<double>());
  if (value.is_array()) {
    std::string text;
    for (const json& part : value) text += (text.empty() ? "" : ", ") + cell_of(part);
    return text;
  }
  return value.is_string() ? value.get<std::string>() : text_of(value);
}

bool varies(const TableRows& rows, const std::string& name) {
  return std::ranges::any_of(
      rows, [&](const json& row) { return row.value(name, json()) != rows.front().value(name, json()); });
}

std::vector<std::pair<std::string, TableRows>> split(const TableRows& rows, const std::vector<std::string>& by) {
  std::vector<std::pair<std::string, TableRows>> groups;
  std::vector<std::string> telling;
  std::ranges::copy_if(by, std::back_inserter(telling), [&](const std::string& key) { return varies(rows, key); });
  for (const json& row : rows) {
    std::string name;
    for (const std::string& key : telling)
      if (row.contains(key))
        name += sentence(name.empty() ? "" : ", ", cell_of(row[key]),
                         key == "tokens"  ? " tokens"
                         : key == "ranks" ? " ranks"
                                          : "");
    auto found = std::ranges::find(groups, name, &std::pair<std::string, TableRows>::first);
    if (found == groups.end()) found = groups.insert(found, {name, {}});
    found->second.push_back(row);
  }
  return groups;
}

Curve curve_of(const std::string& name, const TableRows& rows, const Number& x, const Number& y) {
  Curve curve{name, {}, {}};
  for (const json& row : rows) {
    curve.x.push_back(x(row));
    curve.y.push_back(y(row));
  }
  return curve;
}

Number field(const std::string& name) {
  return [name](const json& row) { return value_of(row, name); };
}

Axis doubling(const std::string& label, const TableRows& rows, const Number& value) {
  Axis axis{.label = label, .base = 2};
  std::set<double> values;
  for (const json& row : rows)
    if (const double v = value(row); v > 0 && v < 1e18) values.insert(v);
  if (values.empty()) return {.label = label};
  for (const double v : values) axis.ticks.emplace_back(v, grouped(static_cast<Index>(v)));
  axis.least = *values.begin() / 1.1;  // what stands at the ends is seen whole
  axis.largest = *values.rbegin() * 1.1;
  return axis;
}

Chart bars(const TableRows& rows, const std::vector<std::string>& bar, const std::vector<std::string>& group,
           const Axis& y, const Number& value) {
  Chart chart{.x = {.least = -0.6}, .y = y, .marks = Chart::Marks::bars};
  std::vector<std::string> places;
  const auto groups = split(rows, group);
  const double width = 0.8 / static_cast<double>(groups.size());
  chart.bar_width = 0.95 * width;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    Curve curve{groups.size() > 1 ? groups[g].first : "", {}, {}};
    for (const json& row : groups[g].second) {
      std::string name;
      for (const std::string& key : bar)
        if (row.contains(key) && (varies(rows, key) || key == bar.front()))
          name.append(name.empty() ? "" : " ").append(cell_of(row[key]));
      const auto place = std::ranges::find(places, name) - places.begin();
      if (place == static_cast<long>(places.size())) places.push_back(name);
      curve.x.push_back(static_cast<double>(place) +
                        (static_cast<double>(g) - 0.5 * static_cast<double>(groups.size() - 1)) * width);
      curve.y.push_back(value(row));
      if (row.contains("min_ms") && y.label.ends_with("ms")) {
        curve.low.push_back(value_of(row, "min_ms"));
        curve.high.push_back(value_of(row, "max_ms"));
      }
    }
    chart.curves.push_back(std::move(curve));
  }
  chart.x.largest = static_cast<double>(places.size()) - 0.4;
  for (std::size_t i = 0; i < places.size(); ++i) chart.x.ticks.emplace_back(static_cast<double>(i), places[i]);
  return chart;
}

}  // namespace annulus::app

#include "app/report/figure.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

constexpr std::array colours{"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                             "#E69F00", "#56B4E9", "#000000"};  // Okabe and Ito: for all eyes

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  std::string replaced;
  std::size_t from = 0;
  for (std::size_t at = 0; (at = text.find(what, from)) != text.npos; from = at + what.size())
    replaced.append(text, from, at - from).append(by);
  text = replaced.append(text, from);
}

// A text in gnuplot's single quotes, in which nothing but the quote itself means anything; two of them are not always read as one,
// so an apostrophe takes its place. What XML cannot hold is left out.
std::string quoted(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 127 || c == '`') c = ' ';  // ends of lines end quotes
  replace_all(text, "'", "\u2019");
  for (const std::string_view none : {"\xef\xbf\xbe", "\xef\xbf\xbf"}) replace_all(text, none, " ");
  replace_all(text, "]]>", "]] >");
  return sentence("'", text, "'");
}

// A text at a tick, which gnuplot takes for a format of numbers.
std::string quoted_tick(std::string text) {
  replace_all(text, "%", "%%");
  return quoted(std::move(text));
}

std::string number(double value) {
  if (!std::isfinite(value)) return "NaN";
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.7g", value);
  return text.data();
}

std::string end_of_range(double value) { return std::isnan(value) ? "*" : number(value); }

// 1, 2 and 5 of every power of ten inside the axis, or 1 of every one where they are many.
std::vector<std::pair<double, std::string>> round_ticks(const Axis& axis) {
  std::vector<std::pair<double, std::string>> ticks;
  const bool many = axis.largest / axis.least > 3e3;
  for (int power = -12; power < 16; ++power)
    for (const double digit : {1.0, 2.0, 5.0}) {
      const double value = digit * std::pow(10.0, power);
      if (value >= axis.least && value <= axis.largest && (digit == 1 || !many))
        ticks.emplace_back(value, number(value));
    }
  return ticks;
}

// At most four round numbers from 0 on: small maps have little room.
std::vector<std::pair<double, std::string>> few_ticks(double largest) {
  double step = 1;
  for (int n = 0; largest / step > 3; ++n) step *= n % 3 == 1 ? 2.5 : 2;  // 1, 2, 5, 10 ...
  std::vector<std::pair<double, std::string>> ticks;
  for (double value = 0; value <= largest * 1.0001; value += step) ticks.emplace_back(value, number(value));
  return ticks;
}

void describe(const Axis& axis, const std::string& name, std::string& script) {
  script += sentence("set ", name, "label ", quoted(axis.label), " noenhanced\n");
  script += sentence("set ", name, "range [", end_of_range(axis.least), ":", end_of_range(axis.largest), "]\n");
  script += axis.base > 0 ? sentence("set logscale ", name, " ", number(axis.base), "\n")
                          : sentence("unset logscale ", name, "\n");
  const auto ticks = axis.ticks.empty() && axis.base == 10 && axis.least > 0 ? round_ticks(axis) : axis.ticks;
  if (ticks.empty()) {
    script += sentence("set ", name, "tics norotate autofreq\n");
    return;
  }
  std::size_t letters = 0;
  for (const auto& tick : ticks) letters += tick.second.size() + 3;
  constexpr std::size_t most_letters = 85;  // side by side below a chart
  script +=
      sentence("set ", name, "tics ", name == "x" && letters > most_letters ? "rotate by 25 right" : "norotate", " (");
  for (std::size_t i = 0; i < ticks.size(); ++i)
    script += sentence(i > 0 ? ", " : "", quoted_tick(ticks[i].second), " ", number(ticks[i].first));
  script += ")\n";
}

// A block of lines "x y low high" that a plot command reads by its name.
void tell(const Curve& curve, const std::string& block, std::string& script) {
  script += sentence(block, " << END_OF_DATA\n");
  for (std::size_t i = 0; i < curve.x.size(); ++i) {
    const bool bars = !curve.low.empty();
    script += sentence(number(curve.x[i]), " ", number(curve.y[i]), " ", number(bars ? curve.low[i] : curve.y[i]), " ",
                       number(bars ? curve.high[i] : curve.y[i]), "\n");
  }
  script += "END_OF_DATA\n";
}

// "$data using ... with ..." of one curve, and of its bars.
std::string plotted(const Chart& chart, const Curve& curve, const std::string& block, std::size_t number_of_curve) {
  const std::string colour = sentence("lc rgb '", colours[number_of_curve % colours.size()], "'"),
                    look = sentence(colour, " dt ", number_of_curve < colours.size() ? "solid" : "2"),
                    point = sentence("pt ", std::array{7, 5, 9, 11, 13, 4, 6}[number_of_curve % 7]),
                    title = curve.name.empty() ? " notitle" : sentence(" title ", quoted(curve.name), " noenhanced");
  const bool bars = chart.marks == Chart::Marks::bars;
  std::string text;
  if (bars)
    text = sentence(block, " using 1:2:(", number(chart.bar_width), ") with boxes fs solid noborder ", colour, title);
  else if (chart.marks == Chart::Marks::lines) text = sentence(block, " using 1:2 with lines lw 1.4 ", look, title);
  else
    text = sentence(block, " using 1:2 with ", chart.marks == Chart::Marks::points ? "points " : "linespoints lw 1.6 ",
                    point, " ps 0.7 ", look, title);
  if (!curve.low.empty())  // the line between the ends, without a mark in the middle
    text += sentence(", ", block, " using 1:3:(0):($4 - $3) with vectors heads size graph 0.006,90 lw 1.2 ",
                     bars ? "lc rgb '#444444'" : colour, " notitle");
  return text;
}

// gnuplot cannot draw what has no point at all: an empty frame.
void tell_nothing(const Axis& x, const Axis& y, std::string& script) {
  describe({.label = x.label, .least = 0, .largest = 1}, "x", script);
  describe({.label = y.label, .least = 0, .largest = 1}, "y", script);
  script += "unset key\nplot NaN notitle\n";
}

bool can_be_drawn(double value, const Axis& axis) {
  double low = axis.least, high = axis.largest;  // nothing is below or above NaN
  if (low > high) std::swap(low, high);
  return std::isfinite(value) && std::abs(value) < 1e100 && (axis.base == 0 || value > 0) && !(value < low) &&
         !(value > high);
}

bool has_points(const Chart& chart) {
  for (const Curve& curve : chart.curves)
    for (std::size_t i = 0; i < curve.x.size(); ++i)
      if (can_be_drawn(curve.x[i], chart.x) && can_be_drawn(curve.y[i], chart.y)) return true;
  return false;
}

void tell(const Chart& chart, const std::string& block, std::string& script) {
  script += sentence("set title ", quoted(chart.title), " noenhanced\n");
  if (!has_points(chart)) return tell_nothing(chart.x, chart.y, script);
  describe(chart.x, "x", script);
  describe(chart.y, "y", script);
  std::size_t named = 0;
  for (const auto* curves : {&chart.curves, &chart.guides})
    named += static_cast<std::size_t>(std::ranges::count_if(*curves, [](const Curve& c) { return !c.name.empty(); }));
  script += named > 0 ? "set key outside right center vertical Left reverse samplen 1.5 width -1\n" : "unset key\n";
  script += sentence("set grid x y back lc rgb '#e4e4e4' lt 1 lw 0.6\n");
  std::string plots;
  for (std::size_t i = 0; i < chart.curves.size(); ++i) {
    const std::string name = sentence(block, "c", i);
    tell(chart.curves[i], name, script);
    plots += sentence(plots.empty() ? "" : ", ", plotted(chart, chart.curves[i], name, i));
  }
  for (std::size_t i = 0; i < chart.guides.size(); ++i) {
    const std::string name = sentence(block, "g", i), &title = chart.guides[i].name;
    tell(chart.guides[i], name, script);
    plots += sentence(plots.empty() ? "" : ", ", name, " using 1:2 with lines lw 1 dt 2 lc rgb '#777777'",
                      title.empty() ? " notitle" : sentence(" title ", quoted(title), " noenhanced"));
  }
  script += sentence("plot ", plots, "\n");
}

// What a cell's shade is taken from; NaN: it stays white.
double shade(const HeatMap& map, double value) {
  const bool white = map.logarithmic ? !(value > 0) : !std::isfinite(value);
  return white ? NAN : std::max(value, map.faintest);
}

void tell(const HeatMap& map, const std::string& block, std::string& script) {
  script += sentence("set title ", quoted(map.title), " noenhanced\n");
  if (std::ranges::all_of(map.values, [&](double value) { return std::isnan(shade(map, value)); }))
    return tell_nothing(map.x, map.y, script);
  Axis x = map.x, y = map.y;
  x.least = y.largest = 0;
  x.largest = map.cell_x * static_cast<double>(map.columns);
  y.least = map.cell_y * static_cast<double>(map.rows);  // the first row is the upper one
  for (Axis* axis : {&x, &y})
    if (axis->ticks.empty()) axis->ticks = few_ticks(std::max(axis->least, axis->largest));
  describe(x, "x", script);
  describe(y, "y", script);
  script += sentence("unset key\nunset grid\n", map.logarithmic ? "set" : "unset", " logscale cb\nset cbrange [",
                     number(map.faintest), ":", number(map.fullest), "]\nset format cb '%g'\nset cbtics ",
                     map.logarithmic ? "autofreq" : number((map.fullest - map.faintest) / 2), "\n", block,
                     " << END_OF_DATA\n");
  // gnuplot wants two rows and two columns at least: a single one is drawn as two halves
  const Index down = map.rows == 1 ? 2 : 1, across = map.columns == 1 ? 2 : 1;
  for (Index row = 0; row < map.rows * down; ++row) {
    for (Index column = 0; column < map.columns * across; ++column) {
      const double value = map.values[static_cast<std::size_t>(row / down * map.columns + column / across)];
      script += sentence(column > 0 ? " " : "", number(shade(map, value)));
    }
    script += "\n";
  }
  script += sentence("END_OF_DATA\nplot ", block, " matrix using (($1 + 0.5) * ",
                     number(map.cell_x / static_cast<double>(across)), "):(($2 + 0.5) * ",
                     number(map.cell_y / static_cast<double>(down)), "):3 with image notitle\nunset logscale cb\n");
}

}  // namespace

std::string script_of(const Figure& figure) {
  const int panels = static_cast<int>(figure.panels.size()),
            columns = std::clamp(figure.columns, 1, std::max(panels, 1));
  std::string script =
      "reset\nset encoding utf8\nset border 3 lc rgb '#777777' lw 0.8\n"
      "set tics nomirror out scale 0.5 textcolor rgb '#333333'\nset format '%.10g'\n"
      "set palette defined (0 '#f2f7fc', 0.25 '#c0d8ed', 0.5 '#6aaed6', 0.75 '#2070b4', 1 '#08306b')\n";
  if (panels != 1) script += sentence("set multiplot layout ", (panels + columns - 1) / columns, ",", columns, "\n");
  for (int i = 0; i < panels; ++i)
    std::visit([&](const auto& panel) { tell(panel, sentence("$p", i), script); },
               figure.panels[static_cast<std::size_t>(i)]);
  if (panels != 1) script += "unset multiplot\n";
  return script;
}

}  // namespace annulus::app

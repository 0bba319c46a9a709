#pragma once
#include <cmath>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "annulus/geometry/range.hpp"

namespace annulus::app {

/// How values lie along one side of a chart.
struct Axis {
  std::string label = {};
  double least = NAN, largest = NAN;  ///< NaN: where the values end; least above largest: the other way round
  double base = 0;                    ///< of a logarithmic axis; 0: a linear one
  std::vector<std::pair<double, std::string>> ticks = {};  ///< empty: round numbers
};

/// One line of a chart. Points whose y is no finite number leave a gap.
struct Curve {
  std::string name = {};  ///< in the key; empty: not there
  std::vector<double> x, y;
  std::vector<double> low = {}, high = {};  ///< ends of the bar at each point; empty: no bars
};

/// Curves over one pair of axes.
struct Chart {
  enum class Marks { lines, points, linked_points, bars };
  std::string title = {};
  Axis x, y;
  Marks marks = Marks::lines;
  double bar_width = 0.8;
  std::vector<Curve> curves = {};
  std::vector<Curve> guides = {};  ///< thin and grey: what the curves are to be compared with
};

/// Cells in shades of one colour: rows downwards, columns to the right.
struct HeatMap {
  std::string title = {};
  Axis x, y;                      ///< only label and ticks (empty: a few round numbers) are used; cells begin at 0
  double cell_x = 1, cell_y = 1;  ///< what a cell covers
  Index rows = 0, columns = 0;
  std::vector<double> values =
      {};  ///< [rows, columns]; what is no number stays white, and of logarithmic shades what is not above 0
  double faintest = 1e-5, fullest = 1;
  bool logarithmic = true;  ///< the shades
};

/// One picture: panels in rows of `columns`.
struct Figure {
  std::string name;                  ///< of its files, without an ending
  std::string caption;               ///< a sentence or two below it
  double width = 860, height = 300;  ///< pixels of the page
  int columns = 1;
  std::vector<std::variant<Chart, HeatMap>> panels = {};
};

/// What gnuplot is told to draw a figure, for the terminal that it has been given. Texts may hold anything: they are drawn letter by
/// letter and never read as commands.
std::string script_of(const Figure& figure);

}  // namespace annulus::app

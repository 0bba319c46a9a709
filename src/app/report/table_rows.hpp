#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "app/report/figure.hpp"

namespace annulus::app {

/// Rows of a table of annulus bench: objects of numbers and texts by their names.
using TableRows = std::vector<nlohmann::json>;
/// What a curve takes from a row.
using Number = std::function<double(const nlohmann::json&)>;

/// NaN where a row has no number of this name.
double value_of(const nlohmann::json& row, const std::string& name);
/// The same as a function.
Number field(const std::string& name);
/// A value as a cell of a table shows it.
std::string cell_of(const nlohmann::json& value);
/// Whether a value is not the same in all rows.
bool varies(const TableRows& rows, const std::string& name);

/// Rows that have these values in common, in the order of their first rows, by what tells them apart: "f32, 1,024 tokens".
std::vector<std::pair<std::string, TableRows>> split(const TableRows& rows, const std::vector<std::string>& by);

Curve curve_of(const std::string& name, const TableRows& rows, const Number& x, const Number& y);
/// A logarithmic axis with a tick where the rows are. There must be rows.
Axis doubling(const std::string& label, const TableRows& rows, const Number& value);
/// Bars side by side: the values of `bar` say where a row's bar stands, those of `group` its colour. Of times they show the fastest and
/// the slowest repetition, too.
Chart bars(const TableRows& rows, const std::vector<std::string>& bar, const std::vector<std::string>& group,
           const Axis& y, const Number& value);

}  // namespace annulus::app

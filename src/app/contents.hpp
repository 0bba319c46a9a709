#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "annulus/store/input_file.hpp"

namespace annulus::app {

/// The attributes of a file's root, by name: texts and numbers.
nlohmann::json attributes_of(const InputFile& file);

/// Calls `visit` with every dataset of a file, one after another:
///   {path, linked}      a link inside the file, and where it leads
///   {path, refusal}     it cannot be read, and why
///   {path, shape, element, units?, summary, holds?}
///                       summary: least, mean and largest of the finite numbers of rows spread over the dataset (about a million
///                       elements), whether these are not all rows (sampled), and how many others are not finite; null where there
///                       is nothing to sum up. holds: "holds NaN, -inf"
/// Rows of a cache (attend --append) are read from the files that they lie in.
void visit_datasets(const InputFile& file, const std::function<void(const nlohmann::json&)>& visit);

/// "[16, 8, 64] bf16", of such a dataset with a shape.
std::string shape_text(const nlohmann::json& dataset);

/// A value for machines. Files may hold names and texts that are no UTF-8: what is not becomes U+FFFD.
std::string text_of(const nlohmann::json& value, int indent = -1);
/// A value in one line of at most about a hundred characters.
std::string short_text(const nlohmann::json& value);

}  // namespace annulus::app

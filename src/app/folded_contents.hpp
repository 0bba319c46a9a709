#pragma once
#include <nlohmann/json.hpp>
#include <vector>

namespace annulus::app {

/// Datasets, as visit_datasets() gives them, without those of layers that hold the same as an earlier one. In their place, behind the last
/// layer, stand
///   {folded}     "layers 1-29: the same 12 datasets each ...", and
///   {path, ...}  each of them, as one dataset with the range of values over these layers: path is "layers/1-29/residual".
std::vector<nlohmann::json> fold_layers(const std::vector<nlohmann::json>& datasets);

}  // namespace annulus::app

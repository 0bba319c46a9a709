#include "app/folded_contents.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "annulus/base/error.hpp"
#include "app/contents.hpp"
#include "app/layers.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

// Of "layers/007/attention/lse": 7 and "attention/lse". -1 of all others.
std::pair<Index, std::string> place_in_layers(const json& dataset) {
  const std::string path = dataset["path"].get<std::string>(), layers = "layers/";
  const auto slash = path.find('/', layers.size());
  if (!path.starts_with(layers) || slash == path.npos) return {-1, ""};
  return {layer_number(path.substr(layers.size(), slash - layers.size())), path.substr(slash + 1)};
}

// The same of layers that hold the same. What cannot be read is like nothing else.
std::string likeness(const json& dataset) {
  if (dataset.contains("refusal")) return dataset["path"].get<std::string>();
  if (dataset.contains("linked"))
    return sentence(place_in_layers(dataset).second, " is ", dataset["linked"].get<std::string>());
  return sentence(place_in_layers(dataset).second, " ", shape_text(dataset), " ",
                  dataset.value("units", json()).dump());
}

// Adds what another layer's dataset holds. The mean is that of the layers' means.
void add_to(json& sum, const json& dataset, std::size_t layers_before) {
  if (const std::string holds = dataset.value("holds", ""); holds.size() > sum.value("holds", "").size())
    sum["holds"] = holds;
  const json& other = dataset["summary"];
  if (other.is_null()) return;
  if (sum["summary"].is_null()) {
    sum["summary"] = other;
    return;
  }
  json& summary = sum["summary"];
  const auto before = static_cast<double>(layers_before);
  summary["least"] = std::min(summary["least"].get<double>(), other["least"].get<double>());
  summary["largest"] = std::max(summary["largest"].get<double>(), other["largest"].get<double>());
  summary["mean"] = (summary["mean"].get<double>() * before + other["mean"].get<double>()) / (before + 1);
  summary["sampled"] = summary["sampled"].get<bool>() || other["sampled"].get<bool>();
}

// Layers like an earlier one, and their datasets, summed up.
struct Fold {
  std::vector<Index> layers;
  std::vector<json> datasets;
};

void add_to(Fold& fold, Index layer, std::vector<json> datasets) {
  std::erase_if(datasets, [](const json& dataset) { return dataset.contains("linked"); });
  if (fold.layers.empty()) fold.datasets = std::move(datasets);
  else
    for (std::size_t i = 0; i < datasets.size(); ++i) add_to(fold.datasets[i], datasets[i], fold.layers.size());
  fold.layers.push_back(layer);
}

void append(const Fold& fold, std::vector<json>& out) {
  const std::string layers = list_text(fold.layers);
  out.push_back(
      {{"folded", sentence(fold.layers.size() > 1 ? "layers " : "layer ", layers, ": the same ",
                           fold.datasets.size() == 1 ? "dataset" : sentence(fold.datasets.size(), " datasets"),
                           fold.layers.size() > 1 ? " each, with the ranges over all of them" : "")}});
  for (json dataset : fold.datasets) {
    dataset["path"] = sentence("layers/", layers, "/", place_in_layers(dataset).second);
    out.push_back(std::move(dataset));
  }
}

}  // namespace

std::vector<json> fold_layers(const std::vector<json>& datasets) {
  std::vector<std::pair<Index, std::vector<json>>> layers;
  std::vector<json> before, behind;
  for (const json& dataset : datasets) {
    const Index layer = place_in_layers(dataset).first;
    if (layer < 0) (layers.empty() ? before : behind).push_back(dataset);
    else if (layers.empty() || layers.back().first != layer) layers.emplace_back(layer, std::vector<json>{dataset});
    else layers.back().second.push_back(dataset);
  }
  std::map<std::string, Fold> folds;
  std::vector<Fold*> in_order;
  std::vector<json> out = std::move(before);
  std::ranges::stable_sort(layers, {}, [](const auto& layer) { return layer.first; });
  for (const auto& [layer, held] : layers) {
    std::string likenesses;
    for (const json& dataset : held) likenesses += likeness(dataset) + "\n";
    const auto [found, is_new] = folds.try_emplace(likenesses);
    if (is_new) {
      in_order.push_back(&found->second);
      out.insert(out.end(), held.begin(), held.end());
    } else {
      add_to(found->second, layer, held);
    }
  }
  for (const Fold* fold : in_order)
    if (!fold->layers.empty()) append(*fold, out);
  out.insert(out.end(), behind.begin(), behind.end());
  return out;
}

}  // namespace annulus::app

#include "app/layers.hpp"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "annulus/base/error.hpp"

namespace annulus::app {

Index layer_number(const std::string& name) {
  constexpr std::size_t most_digits = 9;
  const bool number = !name.empty() && name.size() <= most_digits &&
                      std::ranges::all_of(name, [](unsigned char c) { return std::isdigit(c) != 0; });
  return number ? std::stoll(name) : -1;
}

std::vector<Layer> layers_of(const InputFile& file) {
  std::vector<Layer> layers;
  if (!file.has("layers")) return layers;
  for (const std::string& name : file.names("layers"))
    if (const Index number = layer_number(name); number >= 0) layers.push_back({number, "layers/" + name});
  std::ranges::stable_sort(layers, {}, &Layer::number);
  return layers;
}

std::vector<Layer> traced_layers(const InputFile& file, const std::vector<Layer>& layers) {
  std::vector<Layer> traced;
  std::ranges::copy_if(layers, std::back_inserter(traced),
                       [&](const Layer& layer) { return file.has(layer.attention() + "/entropy"); });
  return traced;
}

std::string list_text(std::span<const Index> ascending) {
  std::string text;
  for (std::size_t begin = 0, end = 0; begin < ascending.size(); begin = end) {
    while (end < ascending.size() && ascending[end] - ascending[begin] == static_cast<Index>(end - begin)) ++end;
    text += sentence(begin > 0 ? ", " : "", ascending[begin]);
    if (end - begin > 1) text += sentence(end - begin > 2 ? "-" : ", ", ascending[end - 1]);
  }
  return text;
}

}  // namespace annulus::app

#pragma once
#include <string_view>

namespace annulus::app {

/// What --activations keeps of each recorded layer.
struct Activations {
  bool residual = false, out = false, mlp = false, q = false, k = false, v = false;
  bool any() const { return residual || out || mlp || q || k || v; }
};
/// "residual,out", or none. Throws Error (usage) for another word.
Activations parse_activations(std::string_view text);

}  // namespace annulus::app

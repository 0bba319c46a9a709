#include "app/activations.hpp"

#include <sstream>
#include <string>

#include "annulus/base/error.hpp"

namespace annulus::app {

Activations parse_activations(std::string_view text) {
  Activations a;
  if (text == "none") return a;
  std::istringstream list{std::string(text)};
  for (std::string word; std::getline(list, word, ',');) {
    bool* which = word == "residual" ? &a.residual
                  : word == "out"    ? &a.out
                  : word == "mlp"    ? &a.mlp
                  : word == "q"      ? &a.q
                  : word == "k"      ? &a.k
                  : word == "v"      ? &a.v
                                     : nullptr;
    require(which != nullptr,
            "activations are none, or of residual, out, mlp, q, k and v with commas between them, not '", word, "'");
    *which = true;
  }
  require(a.any(), "activations are none, or of residual, out, mlp, q, k and v: there is no word");
  return a;
}

}  // namespace annulus::app

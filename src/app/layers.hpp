#pragma once
#include <span>
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"

namespace annulus::app {

/// A layer that a result holds something of.
struct Layer {
  Index number;
  std::string group;  ///< "layers/007"
  std::string attention() const { return group + "/attention"; }
};

/// The groups in /layers that are numbers, from the first layer on. There may be gaps, and none at all.
std::vector<Layer> layers_of(const InputFile& file);
/// Those whose attention has been traced.
std::vector<Layer> traced_layers(const InputFile& file, const std::vector<Layer>& layers);

/// The number of a layer's group in /layers, "007"; -1: the name is no number.
Index layer_number(const std::string& name);

/// {0, 1, 2, 5} -> "0-2, 5".
std::string list_text(std::span<const Index> ascending);

}  // namespace annulus::app

#pragma once
#include <string>

#include "annulus/engine/heads.hpp"
#include "annulus/geometry/mask.hpp"
#include "annulus/store/input_file.hpp"
#include "app/config.hpp"

namespace annulus::app {

/// An input of `attend`: q, k, v (and dout) in one HDF5 file, their shapes checked against one another.
struct TensorInput {
  InputFile file;
  AttentionShape shape;
  Mask mask;
};

/// Opens the file and reads shapes, documents, --dtype, --mask and --softmax-scale.
/// Throws Error (file) naming the dataset and the rule, or Error (usage).
TensorInput open_tensors(const std::string& path, const Settings& settings, bool backward);
/// The same with the choices given: dtype f64 means "as the file".
TensorInput open_tensors(const std::string& path, const std::string& mask, DType dtype, double softmax_scale,
                         bool backward);

}  // namespace annulus::app

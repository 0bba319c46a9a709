#pragma once
#include <optional>
#include <span>
#include <string>

#include "annulus/engine/heads.hpp"
#include "annulus/geometry/mask.hpp"
#include "annulus/store/cache_file.hpp"
#include "annulus/store/input_file.hpp"
#include "app/config.hpp"
#include "app/tensor_places.hpp"

namespace annulus::app {

/// An input of `attend`: q, k, v (and dout) in one HDF5 file, their shapes checked against one another; and where keys and
/// values of earlier tokens come before them, the cache that holds these.
struct TensorInput {
  InputFile file;
  TensorPlaces places;
  AttentionShape shape;
  Mask mask;
  std::optional<CacheFile> cache = {};
  Index cached = 0;  ///< tokens of the cache
  std::string model_mask = {};  ///< of a layer that `run` kept with q, k and v: what the model saw; else empty

  /// Rows of q, k, v or dout at the positions of the runs.
  void read(const std::string& name, std::span<const Run> runs, const Rows& into, const Reading& how = {}) const;
};

/// Where keys and values of earlier tokens are: the first `tokens` of those in a file with k and v, or all (-1).
struct CacheChoice {
  std::string path = {};  ///< empty: there is none
  Index tokens = -1;
};

/// All that is asked of an input.
struct TensorChoice {
  TensorPlaces places = {};
  std::string mask = {};
  DType dtype = DType::f64;  ///< f64: as the file, which is the type that holds those of q, k and v
  double softmax_scale = 0;  ///< 0: that of the model whose layer it is, else 1/sqrt(channels)
  bool backward = false;     ///< dout is needed, too
  CacheChoice cache = {};
};
/// What --group, --names, --layout, --batch, --mask, --dtype and --softmax-scale say.
TensorChoice tensor_choice(const Settings& settings, bool backward, const CacheChoice& cache = {});

/// Opens the file and reads shapes, and documents if the mask has the term.
/// Throws Error (file) naming the dataset and the rule, or Error (usage).
TensorInput open_tensors(const std::string& path, const TensorChoice& choice);

}  // namespace annulus::app

#pragma once
#include <optional>
#include <span>
#include <string>

#include "annulus/engine/heads.hpp"
#include "annulus/geometry/mask.hpp"
#include "annulus/store/cache_file.hpp"
#include "annulus/store/input_file.hpp"
#include "app/config.hpp"

namespace annulus::app {

/// An input of `attend`: q, k, v (and dout) in one HDF5 file, their shapes checked against one another; and where keys and
/// values of earlier tokens come before them, the cache that holds these.
struct TensorInput {
  InputFile file;
  AttentionShape shape;
  Mask mask;
  std::optional<CacheFile> cache = {};
  Index cached = 0;  ///< tokens of the cache

  /// Rows of q, k, v or dout at the positions of the runs.
  void read(const std::string& name, std::span<const Run> runs, const Rows& into) const;
};

/// Where keys and values of earlier tokens are: the first `tokens` of those in a file with k and v, or all (-1).
struct CacheChoice {
  std::string path = {};  ///< empty: there is none
  Index tokens = -1;
};

/// Opens the file and reads shapes, documents (if the mask has the term), --dtype, --mask, and --softmax-scale.
/// Throws Error (file) naming the dataset and the rule, or Error (usage).
TensorInput open_tensors(const std::string& path, const Settings& settings, bool backward,
                         const CacheChoice& cache = {});
/// The same with the choices given: dtype f64 means "as the file", which is the type that holds those of q, k and v.
TensorInput open_tensors(const std::string& path, const std::string& mask, DType dtype, double softmax_scale,
                         bool backward, const CacheChoice& cache = {});

}  // namespace annulus::app

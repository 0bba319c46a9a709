#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/store/draft.hpp"
#include "annulus/store/input_file.hpp"
#include "app/config.hpp"

namespace annulus::app {

/// Where q, k, v, dout and documents are in an input of `attend`, and how they lie there.
struct TensorPlaces {
  std::string group = {};                         ///< empty: the root
  std::map<std::string, std::string> names = {};  ///< of those that are called otherwise: q -> query
  RowAxes axes = {};                              ///< of all but documents

  /// "layer0/query" for "q".
  std::string path(const std::string& tensor) const;
};

/// --group, --names, --layout and --batch.
std::vector<Option> tensor_options();
TensorPlaces tensor_places(const Settings& settings);

/// The same as root attributes of a result (input_group, input_names, input_layout, input_batch), those that are not usual.
void record(Draft& result, const TensorPlaces& places);
/// Throws Error (file) when they make no sense.
TensorPlaces recorded_places(const InputFile& result);

/// What a file has instead of this tensor, in words that end a sentence, with the options that find it; or what it holds.
std::string instead_of(const std::string& tensor, const InputFile& file, const TensorPlaces& places);

}  // namespace annulus::app

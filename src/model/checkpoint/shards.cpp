#include "shards.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>

#include "annulus/base/error.hpp"
#include "json.hpp"
#include "mapped_file.hpp"

namespace annulus::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view single = "model.safetensors", index_name = "model.safetensors.index.json";

// Says what the folder has instead.
[[noreturn]] void refuse(const fs::path& folder) {
  std::vector<std::string> others;
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    const std::string kind = entry->path().extension();
    if (kind == ".bin" || kind == ".gguf" || kind == ".safetensors" || kind == ".pt" || kind == ".pth" ||
        kind == ".h5" || kind == ".msgpack" || kind == ".onnx")
      others.push_back(entry->path().filename());
  }
  std::ranges::sort(others);
  std::string found;
  for (std::size_t n = 0; n < std::min<std::size_t>(others.size(), 3); ++n) found += (n > 0 ? ", " : "") + others[n];
  throw Error(Failure::file, sentence(folder.string(), ": only safetensors are read: the folder must have ", single,
                                      " or ", index_name, found.empty() ? ", but has neither" : ", but has " + found));
}

Shards read_index(const fs::path& folder) {
  Shards shards{.paths = {}, .index = folder / index_name, .places = {}};
  std::set<std::string> paths;
  const MappedFile file(shards.index);
  const auto bytes = file.bytes();
  const auto index = parse_json(shards.index, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  require<Failure::file>(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
                         shards.index, ": an index must have a weight_map, a JSON object");
  for (const auto& [tensor, place] : index["weight_map"].items()) {
    require<Failure::file>(place.is_string(), shards.index, ": the weight_map must name a file for tensor '", tensor,
                           "'");
    const auto name = place.get<std::string>();
    // Whoever made the index must not choose files elsewhere.
    require<Failure::file>(
        name.ends_with(".safetensors") && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos,
        shards.index, ": tensor '", tensor, "' must be in a file *.safetensors of the same folder, not in '", name,
        "'");
    const std::string path = folder / name;
    shards.places[tensor] = path;
    paths.insert(path);
  }
  shards.paths.assign(paths.begin(), paths.end());
  return shards;
}

}  // namespace

Shards find_shards(const std::string& folder) {
  const fs::path place(folder);
  std::error_code failed;
  require<Failure::file>(fs::is_directory(place, failed), folder, ": a checkpoint is a folder with ", single, " or ",
                         index_name, ", but this is not a folder");
  if (fs::exists(place / single, failed)) return {.paths = {place / single}, .index = {}, .places = {}};
  if (fs::exists(place / index_name, failed)) return read_index(place);
  refuse(place);
}

}  // namespace annulus::checkpoint

#pragma once
#include <map>
#include <string>
#include <vector>

namespace annulus::checkpoint {

/// The safetensors files of a folder, and which of them an index says each tensor is in.
struct Shards {
  std::vector<std::string> paths;
  std::string index;                          ///< its path; empty without one
  std::map<std::string, std::string> places;  ///< tensor to path; empty without an index
};

/// Throws Error (file) when the folder has no checkpoint that we read, saying which it has instead.
Shards find_shards(const std::string& folder);

}  // namespace annulus::checkpoint

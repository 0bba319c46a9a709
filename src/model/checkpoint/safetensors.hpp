#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/model/checkpoint.hpp"

namespace annulus::checkpoint {

/// A tensor of a file's header: everything about it but what its elements mean.
struct Entry {
  std::string name;
  std::string type;  ///< the format's word: F32, BF16, I64, F8_E4M3, ...
  std::vector<Index> dims;
  std::span<const std::byte> bytes;
};

/// The tensors of a safetensors file in memory, in the order of their bytes. Throws Error (file) where it breaks the format's rules.
std::vector<Entry> read_safetensors(const std::string& path, std::span<const std::byte> file);

/// What a word of the format stands for, or null when its elements are not numbers that we compute with.
const DType* dtype_of(std::string_view type);

}  // namespace annulus::checkpoint

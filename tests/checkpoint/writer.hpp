#pragma once
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/base/types.hpp"
#include "annulus/memory/numbers16.hpp"

namespace annulus::testing {

/// A folder that goes with the test.
class Folder {
 public:
  Folder() {
    std::string pattern = std::filesystem::temp_directory_path() / "checkpoint-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void write(std::string_view name, std::string_view bytes) const {
    std::ofstream(std::filesystem::path(path_) / name, std::ios::binary) << bytes;
  }

 private:
  std::string path_;
};

/// A tensor to be written: the word of its type, and its elements' bytes.
struct Written {
  std::string name, type;
  std::vector<Index> dims;
  std::string bytes;
};

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// Numbers as elements of a type of ours.
inline Written written(std::string name, DType type, std::vector<Index> dims, const std::vector<double>& numbers) {
  Written tensor{std::move(name), "", std::move(dims), ""};
  for (const double number : numbers) switch (type) {
      case DType::f32:
        append(tensor.bytes, static_cast<float>(number));
        break;
      case DType::f64:
        append(tensor.bytes, number);
        break;
      case DType::bf16:
        append(tensor.bytes, to_bf16(static_cast<float>(number)));
        break;
      case DType::f16:
        append(tensor.bytes, to_f16(static_cast<float>(number)));
        break;
    }
  tensor.type = type == DType::f32 ? "F32" : type == DType::f64 ? "F64" : type == DType::bf16 ? "BF16" : "F16";
  return tensor;
}

/// A file with this header and data.
inline std::string file_of(std::string_view header, std::string_view data) {
  std::string file;
  append(file, static_cast<std::uint64_t>(header.size()));
  return file.append(header).append(data);
}

/// A header's entry.
inline std::string entry_of(const Written& tensor, std::size_t begin, std::size_t end) {
  std::ostringstream dims;
  for (const Index dim : tensor.dims) dims << (dims.tellp() > 0 ? "," : "") << dim;
  return sentence('"', tensor.name, R"(":{"dtype":")", tensor.type, R"(","shape":[)", dims.str(),
                  R"(],"data_offsets":[)", begin, ',', end, "]}");
}

/// A safetensors file; `pad` spaces end its header, as writers do that align what follows.
inline std::string safetensors(const std::vector<Written>& tensors, std::size_t pad = 0) {
  std::string header = R"({"__metadata__":{"format":"pt"})", data;
  for (const Written& tensor : tensors) {
    header += ',';
    header += entry_of(tensor, data.size(), data.size() + tensor.bytes.size());
    data += tensor.bytes;
  }
  return file_of(header + "}" + std::string(pad, ' '), data);
}

}  // namespace annulus::testing

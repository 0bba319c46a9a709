#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// One array of a trained model, as its file has it: little-endian, the last dimension densest. A view of the checkpoint
/// that it came from; `bytes` need not be aligned to the elements.
struct Tensor {
  std::string name;
  DType type = DType::f32;
  std::vector<Index> dims;  ///< none: a single number
  std::span<const std::byte> bytes;
  std::string file;

  Index elements() const { return static_cast<Index>(bytes.size()) / bytes_of(type); }
};

/// The tensors of a trained model: a folder with model.safetensors, or with shards that model.safetensors.index.json names.
/// Files are mapped, not read: opening takes as long as their headers, and pages that were read are the system's cache,
/// shared by all processes of a node. Everything a header says is checked, the lengths against the file as it was when
/// it was opened: whoever cuts a file that is mapped ends the processes that read it (SIGBUS), so replace files instead.
/// The format: https://github.com/huggingface/safetensors.
class Checkpoint {
 public:
  /// Throws Error (file) when there are no such files, another format only, or a file that breaks the format's rules.
  explicit Checkpoint(const std::string& folder);
  Checkpoint(Checkpoint&& other) noexcept;
  Checkpoint& operator=(Checkpoint&& other) noexcept;
  ~Checkpoint();

  const std::string& folder() const;
  /// Paths of the files it was read from.
  std::span<const std::string> files() const;
  /// All tensors that can be read, by name.
  std::span<const Tensor> tensors() const;
  /// Bytes of all tensors that can be read.
  Index bytes() const;

  /// Whether the files have a tensor of this name, of whatever type.
  bool has(std::string_view name) const;
  /// Null when there is none. Throws Error (file) when its elements are not f32, f16, bf16 or f64, as of a quantized model.
  const Tensor* find(std::string_view name) const;
  /// The same, of these dimensions. Throws Error (file) when there is none, naming those whose names are most alike, or when
  /// it has others.
  const Tensor& tensor(std::string_view name, std::span<const Index> dims) const;
  /// Says that a tensor's pages are not needed soon: they no longer count as this process's memory. It can still be read.
  void release(const Tensor& tensor) const;

 private:
  struct Contents;
  std::unique_ptr<Contents> contents_;
};

}  // namespace annulus

#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace annulus::checkpoint {

/// A whole file in memory, read-only and private to nobody: its pages are the system's cache.
class MappedFile {
 public:
  /// Throws Error (file) with the system's reason.
  explicit MappedFile(std::string path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  /// The system may take these pages; read again, they come back.
  void release(std::span<const std::byte> part) const;

 private:
  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace annulus::checkpoint

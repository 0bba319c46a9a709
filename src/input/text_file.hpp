#pragma once
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// A file, read from its beginning to its end in chunks of at most 1 MiB; unpacked on the way if it is compressed by gzip
/// or bgzip, which its first two bytes say and no UTF-8 text begins with.
class TextFile {
 public:
  /// Throws Error (file) when the file cannot be opened, as next() does when it cannot be read, is damaged or cut short.
  explicit TextFile(std::string path);
  ~TextFile();
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;

  /// The bytes that follow, valid until the next call; empty at the end.
  std::string_view next();
  /// What byte positions in sentences about the file count in: the file, or what is unpacked from it.
  const std::string& contents() const { return contents_; }

 private:
  class Gzip;
  std::string_view read();

  std::string path_, contents_;
  std::ifstream stream_;
  std::vector<char> chunk_;  // of the file
  Index at_ = 0;
  std::string_view first_;  // read to see what the file is
  std::unique_ptr<Gzip> gzip_;
};

}  // namespace annulus

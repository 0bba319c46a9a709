#pragma once
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// A file, read from its beginning to its end in chunks of at most 1 MiB.
class TextFile {
 public:
  /// Throws Error (file) when the file cannot be opened, as next() does when it cannot be read.
  explicit TextFile(std::string path);

  /// The bytes that follow, valid until the next call; empty at the end.
  std::string_view next();
  /// What byte positions in sentences about the file count in.
  const std::string& contents() const { return path_; }

 private:
  std::string path_;
  std::ifstream stream_;
  std::vector<char> chunk_;
  Index at_ = 0;
};

}  // namespace annulus

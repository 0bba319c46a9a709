#pragma once
#include <span>
#include <string>
#include <utility>

#include "annulus/base/types.hpp"
#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"
#include "annulus/store/element.hpp"

namespace annulus::store {

/// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int file) : file_(file) {}
  Descriptor(Descriptor&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~Descriptor();
  int get() const { return file_; }

 private:
  int file_ = -1;
};

/// The system's words for errno or another code.
std::string reason_of(int code);

/// Opens a regular file. flags as open(2). Throws Error (file) with the system's reason.
Descriptor open_file(const std::string& path, int flags);
/// Bytes of an open file.
Index bytes_of_file(int file, const std::string& path);

/// How many rows of `row_bytes` bytes are moved at once: about 64 MiB, at least one row.
Index rows_at_once(Index row_bytes);
/// Rows of all runs together. Throws Error (usage) unless each run lies within [0, tokens).
Index rows_of(std::span<const Run> runs, Index tokens, const std::string& what);
/// Throws Error (usage) unless rows fit a dataset of this shape (see InputFile::read_rows) and lie on the CPU.
void require_rows(const Shape& shape, const Rows& rows, Index expected, const std::string& what);
/// Positions [begin, begin + count) of a run, as a run.
constexpr Run part(const Run& run, Index begin, Index count) { return {run.at(begin), count, run.stride}; }

}  // namespace annulus::store

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

/// Reads rows that lie one after another in an open file, from byte `offset` on, into rows of any pitch. Throws Error
/// (file) when the file ends before, as one does that somebody cuts meanwhile.
void read_at(int file, Index offset, const Rows& into, const std::string& what);

/// Throws Error (fit) when the disk of a file's directory has less than `bytes` free.
void require_space(const std::string& path, Index bytes);
/// Reserves [offset, offset + bytes) of an open file on its disk. Throws Error (fit) when the disk is too small.
void reserve(int file, Index offset, Index bytes, const std::string& path);

/// How many rows of `row_bytes` bytes are moved at once, at least one: 1 MiB, which stays in a core's cache until it is
/// converted (64 MiB took three times as long); of a chunked dataset 64 MiB, since each chunk met may be decompressed.
Index rows_at_once(Index row_bytes, bool chunked = false);
/// Rows of all runs together. Throws Error (usage) unless each run lies within [0, tokens).
Index rows_of(std::span<const Run> runs, Index tokens, const std::string& what);
/// Throws Error (usage) unless rows fit a dataset of this shape (see InputFile::read_rows) and lie on the CPU.
void require_rows(const Shape& shape, const Rows& rows, Index expected, const std::string& what);
/// Positions [begin, begin + count) of a run, as a run.
constexpr Run part(const Run& run, Index begin, Index count) { return {run.at(begin), count, run.stride}; }

}  // namespace annulus::store

#include "posix.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

namespace annulus::store {

Descriptor::~Descriptor() {
  if (file_ >= 0) ::close(file_);
}

std::string reason_of(int code) { return std::generic_category().message(code); }

Descriptor open_file(const std::string& path, int flags) {
  // O_NONBLOCK: opening a named pipe must not wait for its other end.
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0666));
  require<Failure::file>(file.get() >= 0, path, ": the file cannot be opened: ", reason_of(errno));
  struct stat status {};
  require<Failure::file>(::fstat(file.get(), &status) == 0, path, ": ", reason_of(errno));
  require<Failure::file>(S_ISREG(status.st_mode), path, ": this is not a regular file");
  return file;
}

Index bytes_of_file(int file, const std::string& path) {
  struct stat status {};
  require<Failure::file>(::fstat(file, &status) == 0, path, ": ", reason_of(errno));
  return status.st_size;
}

void read_at(int file, Index offset, const Rows& into, const std::string& what) {
  const bool dense = into.dense();
  const Index length = dense ? into.bytes() : into.row_bytes(), pieces = dense ? 1 : into.tokens;
  std::array<iovec, 256> places{};
  for (Index done = 0; done < into.bytes();) {
    std::size_t count = 0;
    Index within = done % length;  // a call may end in the middle of a row
    for (Index i = done / length; i < pieces && count < places.size(); ++i, within = 0)
      places[count++] = {into.data + i * into.pitch + within, static_cast<std::size_t>(length - within)};
    const ssize_t read = ::preadv(file, places.data(), static_cast<int>(count), offset + done);
    if (read < 0 && errno == EINTR) continue;
    require<Failure::file>(read >= 0, what, ": its rows cannot be read: ", reason_of(errno));
    require<Failure::file>(read > 0, what, ": its rows need ", into.bytes() - done, " bytes from byte ", offset + done,
                           ", but the file has only ", bytes_of_file(file, what));
    done += read;
  }
}

void require_space(const std::string& path, Index bytes) {
  struct statvfs disk {};
  const auto parent = std::filesystem::absolute(path).parent_path();
  if (::statvfs(parent.c_str(), &disk) != 0 || disk.f_blocks == 0) return;  // no disk, such as /proc
  const auto available = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  require<Failure::fit>(static_cast<double>(bytes) <= available, path, ": the result needs ", bytes,
                        " bytes on the disk, but only ", static_cast<Index>(available), " are free");
}

void reserve(int file, Index offset, Index bytes, const std::string& path) {
  if (bytes == 0) return;
  const int code = ::posix_fallocate(file, offset, bytes);
  if (code == ENOSPC || code == EDQUOT) require_space(path, bytes);
  if (code != 0)
    throw Error(code == ENOSPC || code == EDQUOT ? Failure::fit : Failure::file,
                sentence(path, ": ", bytes, " bytes cannot be reserved on the disk: ", reason_of(code)));
}

Index rows_at_once(Index row_bytes, bool chunked) {
  return std::max<Index>(1, (Index{chunked ? 64 : 1} << 20) / std::max<Index>(1, row_bytes));
}

Index rows_of(std::span<const Run> runs, Index tokens, const std::string& what) {
  Index rows = 0;
  for (const Run& run : runs) {
    if (run.count == 0) continue;
    const bool inside = run.count > 0 && run.stride > 0 && run.first >= 0 && run.first < tokens &&
                        (run.count - 1) <= (tokens - 1 - run.first) / run.stride;
    require(inside, what, ": a run must lie within the ", tokens, " rows: first = ", run.first, ", count = ", run.count,
            ", stride = ", run.stride);
    rows += run.count;
  }
  return rows;
}

void require_rows(const Shape& shape, const Rows& rows, Index expected, const std::string& what) {
  const auto& dims = shape.dims;
  const bool fits = (dims.size() == 3 && dims[1] == rows.heads && dims[2] == rows.channels) ||
                    (dims.size() == 2 && rows.channels == 1 && dims[1] == rows.heads) ||
                    (dims.size() == 2 && rows.heads == 1 && dims[1] == rows.channels) ||
                    (dims.size() == 1 && rows.heads == 1 && rows.channels == 1);
  require<Failure::file>(fits, what, " is ", text_of(shape), ", but rows of ", rows.heads, " heads x ", rows.channels,
                         " channels are needed");
  require(rows.tokens == expected, what, ": the runs have ", expected, " rows, but the memory has ", rows.tokens);
  require(rows.place == Place::cpu, what, ": rows must be in CPU memory to be read or written");
  require(rows.pitch >= rows.row_bytes() || rows.tokens <= 1, what, ": the pitch of the rows must be at least ",
          rows.row_bytes(), " bytes, not ", rows.pitch);
}

}  // namespace annulus::store

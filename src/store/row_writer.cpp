#include "annulus/store/row_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "annulus/memory/device.hpp"
#include "posix.hpp"

namespace annulus {
namespace {

constexpr Index largest_write = Index{1} << 30;  // Linux cuts writes at 2 GiB - 4 KiB; some file systems earlier

template <class T>
bool store_as(Index value, std::byte* to) {
  T element = std::numeric_limits<T>::max();
  if (!(std::is_unsigned_v<T> && value == -1)) {
    if (!std::in_range<T>(value)) return false;
    element = static_cast<T>(value);
  }
  std::memcpy(to, &element, sizeof element);
  return true;
}

bool store_integer(Element element, Index value, std::byte* to) {
  switch (element) {
    case Element::i8:
      return store_as<std::int8_t>(value, to);
    case Element::i16:
      return store_as<std::int16_t>(value, to);
    case Element::i32:
      return store_as<std::int32_t>(value, to);
    case Element::i64:
      return store_as<std::int64_t>(value, to);
    case Element::u8:
      return store_as<std::uint8_t>(value, to);
    case Element::u16:
      return store_as<std::uint16_t>(value, to);
    case Element::u32:
      return store_as<std::uint32_t>(value, to);
    case Element::u64:
      return store_as<std::uint64_t>(value, to);
    default:
      return false;
  }
}

std::string place_of(const Layout& layout, const std::string& name) { return layout.path + ": dataset '" + name + "'"; }

}  // namespace

RowWriter::RowWriter(const Layout& layout) : layout_(layout) {
  file_ = ::open(layout.path.c_str(), O_WRONLY | O_CLOEXEC);
  require<Failure::file>(file_ >= 0, layout.path,
                         ": the draft cannot be opened for writing: ", store::reason_of(errno));
}

RowWriter::RowWriter(RowWriter&& other) noexcept
    : layout_(std::move(other.layout_)), file_(std::exchange(other.file_, -1)), wrote_(other.wrote_) {}

RowWriter::~RowWriter() {
  if (file_ >= 0) ::close(file_);
}

int RowWriter::opened() const {
  require(file_ >= 0, layout_.path, ": no rows can be written after finish()");
  return file_;
}

void RowWriter::write_at(const Layout::Dataset& dataset, Index row, const std::byte* bytes, Index count) {
  Index at = dataset.offset + row * dataset.row_bytes();
  while (count > 0) {
    const ssize_t written = ::pwrite(opened(), bytes, static_cast<std::size_t>(std::min(count, largest_write)), at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int code = written == 0 ? ENOSPC : errno;
      throw Error(code == ENOSPC || code == EDQUOT ? Failure::fit : Failure::file,
                  sentence(place_of(layout_, dataset.name), ": ", count, " bytes cannot be written at byte ", at, ": ",
                           store::reason_of(code)));
    }
    wrote_ = true;
    bytes += written;
    at += written;
    count -= written;
  }
}

void RowWriter::write_run(const Layout::Dataset& dataset, const Run& run, const std::byte* bytes) {
  const Index row_bytes = dataset.row_bytes();
  if (run.stride == 1 || run.count == 1) return write_at(dataset, run.first, bytes, run.count * row_bytes);
  for (Index i = 0; i < run.count; ++i) write_at(dataset, run.at(i), bytes + i * row_bytes, row_bytes);
}

void RowWriter::write_rows(const std::string& name, std::span<const Run> runs, const Rows& from) {
  const Layout::Dataset& dataset = layout_.find(name);
  const std::string what = place_of(layout_, name);
  const auto type = dtype_of(dataset.shape.element);
  require(type.has_value(), what, " holds ", name_of(dataset.shape.element), ", so floats cannot be written to it");
  opened();
  const Index tokens = dataset.shape.dims.empty() ? 0 : dataset.shape.dims[0];
  store::require_rows(dataset.shape, from, store::rows_of(runs, tokens, what), what);
  if (from.bytes() == 0) return;
  const bool in_place = from.type == *type && from.dense();
  const Index batch = store::rows_at_once(dataset.row_bytes());
  std::vector<std::byte> scratch;
  if (!in_place) scratch.resize(static_cast<std::size_t>(std::min(batch, from.tokens) * dataset.row_bytes()));
  Index row = 0;
  for (const Run& run : runs) {
    for (Index begin = 0; begin < run.count && !in_place; begin += batch) {
      const Index count = std::min(batch, run.count - begin);
      convert(from.slice(row + begin, row + begin + count),
              dense_rows(scratch.data(), *type, count, from.heads, from.channels));
      write_run(dataset, store::part(run, begin, count), scratch.data());
    }
    if (in_place && run.count > 0) write_run(dataset, run, from.data + row * from.pitch);
    row += run.count;
  }
}

void RowWriter::write_integer_rows(const std::string& name, std::span<const Run> runs, std::span<const Index> values,
                                   Index per_row) {
  const Layout::Dataset& dataset = layout_.find(name);
  const std::string what = place_of(layout_, name);
  const Element element = dataset.shape.element;
  require(is_integer(element), what, " holds ", name_of(element), ", so integers cannot be written to it");
  opened();
  const Index row_bytes = dataset.row_bytes(), width = bytes_of(element);
  require(!dataset.shape.dims.empty() && per_row * width == row_bytes, what, " is ", text_of(dataset.shape), ", but ",
          per_row, " integers were given for each row");
  const Index rows = store::rows_of(runs, dataset.shape.dims[0], what);
  require(rows * per_row == static_cast<Index>(values.size()), what, ": the runs have ", rows, " rows of ", per_row,
          " integers, but ", values.size(), " were given");
  if (values.empty()) return;
  const Index batch = store::rows_at_once(row_bytes);
  std::vector<std::byte> scratch(static_cast<std::size_t>(std::min(batch, rows) * row_bytes));
  const Index* next = values.data();
  for (const Run& run : runs) {
    for (Index begin = 0; begin < run.count; begin += batch) {
      const Index count = std::min(batch, run.count - begin);
      for (Index i = 0; i < count * per_row; ++i, ++next)
        require(store_integer(element, *next, scratch.data() + i * width), what, ": ", *next, " does not fit ",
                name_of(element));
      write_run(dataset, store::part(run, begin, count), scratch.data());
    }
  }
}

void RowWriter::finish() {
  const int file = std::exchange(file_, -1);
  require(file >= 0, layout_.path, ": finish() was called twice");
  int code = !wrote_ || ::fsync(file) == 0 ? 0 : errno;  // many ranks may own no rows
  if (::close(file) != 0 && code == 0) code = errno;
  const bool full = code == ENOSPC || code == EDQUOT;
  if (code != 0)
    throw Error(full ? Failure::fit : Failure::file,
                sentence(layout_.path, ": the rows did not reach the disk: ", store::reason_of(code)));
}

}  // namespace annulus

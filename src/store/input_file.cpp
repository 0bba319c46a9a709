#include "annulus/store/input_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "annulus/memory/device.hpp"
#include "base/threads.hpp"
#include "opened.hpp"
#include "posix.hpp"

namespace annulus {
namespace {

using store::checked;
using store::Hdf5Lock;
using store::Id;
using store::owned;

/// Bytes of a row from which on the system puts rows among others in memory; fewer (64: 72 ms for 32 MiB) take longer than
/// reading them dense and copying (27).
constexpr Index least_scattered = 512;

/// Reads the run's rows, every element of them, densely and in the order of the file; the file's type in this machine's byte
/// order. shape: that of the whole dataset.
void read_run(hid_t dataset, const Shape& shape, const RowAxes& axes, const Run& run, std::byte* to,
              const std::string& what) {
  std::vector<hsize_t> start(shape.dims.size(), 0), stride(shape.dims.size(), 1),
      count(shape.dims.begin(), shape.dims.end());
  const std::size_t before = axes.batch < 0 ? 0 : 1, tokens = before + (axes.heads_first ? 1 : 0);
  if (before == 1) {
    start[0] = static_cast<hsize_t>(axes.batch);
    count[0] = 1;
  }
  start[tokens] = static_cast<hsize_t>(run.first);
  stride[tokens] = static_cast<hsize_t>(run.count > 1 ? run.stride : 1);
  count[tokens] = static_cast<hsize_t>(run.count);
  const Id file = owned(H5Dget_space(dataset), H5Sclose, what + ": its shape cannot be read");
  checked(H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), stride.data(), count.data(), nullptr),
          what + ": its rows cannot be selected");
  const Id memory = owned(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose, what);
  const Id type = store::type_of(shape.element);
  checked(H5Dread(dataset, type.get(), memory.get(), file.get(), H5P_DEFAULT, to), what + ": its rows cannot be read");
}

/// Strides up to which rows between those that are wanted are read, too, where rows lie in chunks. HDF5 unpacks whole chunks
/// all the same, and copies whole ones at once but strided rows piece by piece: 5 to 10 times as long.
constexpr Index most_skipped = 64;

bool is_sparse(const Run& run) { return run.count > 1 && run.stride > 1 && run.stride <= most_skipped; }

/// As read_run, by reading all rows between the first and the last into `dense`. heads: of a dataset with heads first, else 1.
void read_sparse_run(hid_t dataset, const Shape& shape, const RowAxes& axes, const Run& run, Index heads,
                     Index piece_bytes, std::vector<std::byte>& dense, std::byte* to, const std::string& what) {
  const Run all{run.first, (run.count - 1) * run.stride + 1, 1};
  dense.resize(static_cast<std::size_t>(all.count * heads * piece_bytes));
  read_run(dataset, shape, axes, all, dense.data(), what);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < run.count; ++i, to += piece_bytes)
      std::memcpy(to, dense.data() + (h * all.count + i * run.stride) * piece_bytes,
                  static_cast<std::size_t>(piece_bytes));
}

template <class T>
void load_as(const std::byte* from, std::span<Index> into, const std::string& what) {
  for (std::size_t i = 0; i < into.size(); ++i) {
    T value{};
    std::memcpy(&value, from + i * sizeof value, sizeof value);
    const bool unused = std::is_unsigned_v<T> && value == std::numeric_limits<T>::max();
    require<Failure::file>(unused || std::in_range<Index>(value), what, ": ", +value, " is too large");
    into[i] = unused ? -1 : static_cast<Index>(value);
  }
}

void load_integers(Element element, const std::byte* from, std::span<Index> into, const std::string& what) {
  switch (element) {
    case Element::i8:
      return load_as<std::int8_t>(from, into, what);
    case Element::i16:
      return load_as<std::int16_t>(from, into, what);
    case Element::i32:
      return load_as<std::int32_t>(from, into, what);
    case Element::i64:
      return load_as<std::int64_t>(from, into, what);
    case Element::u8:
      return load_as<std::uint8_t>(from, into, what);
    case Element::u16:
      return load_as<std::uint16_t>(from, into, what);
    case Element::u32:
      return load_as<std::uint32_t>(from, into, what);
    case Element::u64:
      return load_as<std::uint64_t>(from, into, what);
    default:
      return;
  }
}

template <class Bits>
bool any_infinite(const std::byte* row, Index count, Bits infinity) {
  bool any = false;
  for (Index i = 0; i < count; ++i) {
    Bits bits{};
    std::memcpy(&bits, row + i * Index{sizeof bits}, sizeof bits);
    any |= (bits & (std::numeric_limits<Bits>::max() >> 1)) == infinity;
  }
  return any;
}

bool any_infinite(const Rows& rows, Index token) {
  const Index count = rows.heads * rows.channels;
  const std::byte* row = rows.at<const std::byte>(token);
  switch (rows.type) {
    case DType::f32:
      return any_infinite<std::uint32_t>(row, count, 0x7f800000);
    case DType::bf16:
      return any_infinite<std::uint16_t>(row, count, 0x7f80);
    case DType::f16:
      return any_infinite<std::uint16_t>(row, count, 0x7c00);
    case DType::f64:
      return false;
  }
  return false;
}

/// What is finite in the file must not become infinite in a narrower type. from: the rows of the run, dense, with the heads
/// from first_head on; to: the same, converted.
void require_range(const Rows& from, const Rows& to, const Run& run, Index first_head, const std::string& what) {
  if (bytes_of(element_of(to.type)) >= bytes_of(element_of(from.type)) && to.type != DType::f16) return;
  CpuDevice cpu;
  const Array exact(cpu, DType::f64, 1, from.heads, from.channels), rounded(cpu, DType::f64, 1, to.heads, to.channels);
  for (Index token = 0; token < to.tokens; ++token) {
    if (!any_infinite(to, token)) continue;
    convert(from.slice(token, token + 1), exact);
    convert(to.slice(token, token + 1), rounded);
    const auto was = exact.elements<double>(), is = rounded.elements<double>();
    for (std::size_t i = 0; i < was.size(); ++i)
      require<Failure::file>(!std::isinf(is[i]) || std::isinf(was[i]), what, " must fit the range of ",
                             name_of(to.type), ": token ", run.at(token), ", head ",
                             first_head + static_cast<Index>(i) / from.channels, ", channel ",
                             static_cast<Index>(i) % from.channels, " is ", was[i]);
  }
}

/// Throws unless a dataset of this shape has the axes; returns the shape of its rows.
Shape shape_of_rows(Shape shape, const RowAxes& axes, const std::string& what) {
  if (axes == RowAxes{}) return shape;
  auto& dims = shape.dims;
  const std::size_t rank = axes.batch < 0 ? 3 : 4;
  require<Failure::file>(dims.size() == rank, what, " must be ", text_of(axes), ": it is ", text_of(shape));
  if (axes.batch >= 0) {
    require<Failure::file>(axes.batch < dims[0], what, " must have a sequence ", axes.batch, " in its batch: it is ",
                           text_of(shape));
    dims.erase(dims.begin());
  }
  if (axes.heads_first) std::swap(dims[0], dims[1]);
  return shape;
}

Index row_elements(const Shape& shape) {
  Index elements = 1;
  for (std::size_t i = 1; i < shape.dims.size(); ++i) elements *= shape.dims[i];
  return elements;
}

struct Batch {
  Run run;
  Index row = 0;  ///< the first of its rows, counted over all runs
};

/// All runs, in batches of at most `rows` rows.
std::vector<Batch> batches_of(std::span<const Run> runs, Index rows) {
  std::vector<Batch> batches;
  Index row = 0;
  for (const Run& run : runs) {
    for (Index begin = 0; begin < run.count; begin += rows)
      batches.push_back({store::part(run, begin, std::min(rows, run.count - begin)), row + begin});
    row += run.count;
  }
  return batches;
}

/// Converts a batch of rows, dense in `from`: all heads of a token together, or head after head. to: of another type or pitch.
void convert_batch(std::byte* from, DType type, bool heads_first, const Rows& to, const Run& run,
                   const std::string& what) {
  const Index heads = heads_first ? 1 : to.heads;
  for (Index h = 0; h < to.heads; h += heads) {
    const Rows block = dense_rows(from, type, to.tokens, heads, to.channels), part = to.take_heads(h, h + heads);
    convert(block, part);
    require_range(block, part, run, h, what);
    from += block.bytes();
  }
}

template <class T>
std::vector<T> list_of(Value value, const std::string& what, const char* kind) {
  auto* list = std::get_if<std::vector<T>>(&value);
  require<Failure::file>(list != nullptr, what, " must hold ", kind);
  return std::move(*list);
}

}  // namespace

std::string text_of(const RowAxes& axes) {
  return sentence(axes.batch < 0 ? "[" : "[batch, ", axes.heads_first ? "heads, tokens" : "tokens, heads",
                  ", channels]");
}

InputFile::InputFile(const std::string& path) {
  const Hdf5Lock lock;
  opened_ = std::make_unique<Opened>(path);
}
InputFile::InputFile(InputFile&&) noexcept = default;
InputFile& InputFile::operator=(InputFile&&) noexcept = default;
InputFile::~InputFile() = default;

const std::string& InputFile::path() const { return opened_->path; }

bool InputFile::has(const std::string& name) const {
  const Hdf5Lock lock;
  return opened_->has(name);
}

Shape InputFile::shape(const std::string& name) const {
  const Hdf5Lock lock;
  return opened_->dataset(name).shape;
}

Shape InputFile::shape(const std::string& name, const RowAxes& axes) const {
  return shape_of_rows(shape(name), axes, opened_->what(name));
}

void InputFile::read_rows(const std::string& name, std::span<const Run> runs, const Rows& into, const RowAxes& axes,
                          const Reading& how) const {
  std::optional<Hdf5Lock> lock(std::in_place);
  Opened::Dataset dataset = opened_->dataset(name);
  const Shape shape = shape_of_rows(dataset.shape, axes, dataset.what);
  const auto type = dtype_of(shape.element);
  require<Failure::file>(type.has_value(), dataset.what, " must hold f16, bf16, f32 or f64, not ",
                         name_of(shape.element));
  require<Failure::file>(!shape.dims.empty(), dataset.what, " must have rows, but it is a single number");
  store::require_rows(shape, into, store::rows_of(runs, shape.dims[0], dataset.what), dataset.what);
  if (into.bytes() == 0) return;
  const Index row_bytes = row_elements(shape) * bytes_of(*type),
              begin = dataset.offset + std::max<Index>(0, axes.batch) * shape.dims[0] * row_bytes;
  const bool plain = dataset.offset >= 0 && !axes.heads_first &&
                     std::ranges::all_of(runs, [](const Run& run) { return run.stride == 1 || run.count <= 1; });
  const bool in_place =
      *type == into.type && !axes.heads_first && (into.dense() || (plain && row_bytes >= least_scattered));
  Index spread = 1;  // rows that are read for each one that is wanted
  for (const Run& run : runs)
    if (dataset.chunked && is_sparse(run)) spread = std::max(spread, run.stride);
  const Index at_once =
      in_place && !plain && spread == 1 ? into.tokens : store::rows_at_once(row_bytes * spread, dataset.chunked);
  std::vector<std::byte> between;  // of one thread: chunks are read under the lock
  if (plain) {                     // the system reads for all threads, and all ranks that are threads, at once
    dataset.id = {};
    lock.reset();
  }
  const auto fetch = [&](const Run& run, const Rows& to) {
    if (plain) return store::read_at(opened_->descriptor, begin + run.first * row_bytes, to, dataset.what);
    if (spread == 1 || !is_sparse(run))
      return read_run(dataset.id.get(), dataset.shape, axes, run, to.data, dataset.what);
    const Index heads = axes.heads_first ? into.heads : 1;
    read_sparse_run(dataset.id.get(), dataset.shape, axes, run, heads, row_bytes / heads, between, to.data,
                    dataset.what);
  };
  const auto batches = batches_of(runs, at_once);
  const int threads = static_cast<int>(std::min<Index>(plain ? how.threads : 1, std::ssize(batches)));
  std::vector<std::vector<std::byte>> scratch(static_cast<std::size_t>(threads));
  try_each_item(threads, std::ssize(batches), [&](Index item, int thread) {
    const auto& [run, row] = batches[static_cast<std::size_t>(item)];
    const Rows to = into.slice(row, row + run.count);
    if (in_place) {
      fetch(run, to);
    } else {
      auto& block = scratch[static_cast<std::size_t>(thread)];
      block.resize(static_cast<std::size_t>(std::min(at_once, into.tokens) * row_bytes));
      fetch(run, dense_rows(block.data(), *type, run.count, into.heads, into.channels));
      convert_batch(block.data(), *type, axes.heads_first, to, run, dataset.what);
    }
    if (how.look) how.look(to);
  });
}

void InputFile::read_integer_rows(const std::string& name, std::span<const Run> runs, std::span<Index> into) const {
  const Hdf5Lock lock;
  const Opened::Dataset dataset = opened_->dataset(name);
  const Shape& shape = dataset.shape;
  require<Failure::file>(is_integer(shape.element), dataset.what, " must hold integers, not ", name_of(shape.element));
  require<Failure::file>(!shape.dims.empty(), dataset.what, " must have rows, but it is a single number");
  const Index per_row = row_elements(shape), rows = store::rows_of(runs, shape.dims[0], dataset.what);
  require(rows * per_row == static_cast<Index>(into.size()), dataset.what, ": ", rows, " rows of ", per_row,
          " integers do not fit memory for ", into.size());
  if (into.empty()) return;
  const Index row_bytes = per_row * bytes_of(shape.element), at_once = store::rows_at_once(row_bytes, dataset.chunked);
  std::vector<std::byte> scratch(static_cast<std::size_t>(std::min(at_once, rows) * row_bytes));
  for (const auto& [run, row] : batches_of(runs, at_once)) {
    read_run(dataset.id.get(), shape, {}, run, scratch.data(), dataset.what);
    const auto to =
        into.subspan(static_cast<std::size_t>(row * per_row), static_cast<std::size_t>(run.count * per_row));
    load_integers(shape.element, scratch.data(), to, dataset.what);
  }
}

std::vector<Index> InputFile::read_integers(const std::string& name, Index limit) const {
  const Hdf5Lock lock;
  return list_of<Index>(opened_->whole(name, limit), opened_->what(name), "integers");
}

std::vector<double> InputFile::read_numbers(const std::string& name, Index limit) const {
  const Hdf5Lock lock;
  return list_of<double>(opened_->whole(name, limit), opened_->what(name), "f16, bf16, f32 or f64");
}

std::vector<std::string> InputFile::read_texts(const std::string& name, Index limit) const {
  const Hdf5Lock lock;
  return list_of<std::string>(opened_->whole(name, limit), opened_->what(name), "text");
}

}  // namespace annulus

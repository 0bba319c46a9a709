#include "annulus/memory/device.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "base/threads.hpp"
#include "memory/elements.hpp"

namespace annulus {
namespace {

constexpr std::size_t alignment = 64;
constexpr std::size_t huge_page = std::size_t{2} << 20U;
constexpr std::size_t least_kept = std::size_t{128} << 10U;  // smaller ones the C library keeps by itself
constexpr Index least_portion = Index{512} << 10U;           // for a thread of its own
constexpr std::size_t most_kept = std::size_t{64} << 20U;    // larger ones take longer to use than to allocate

std::size_t unit_of(Index bytes) { return static_cast<std::size_t>(bytes) >= 2 * huge_page ? huge_page : alignment; }
std::size_t whole_units(Index bytes) {
  const std::size_t unit = unit_of(bytes);
  return std::max((static_cast<std::size_t>(bytes) + unit - 1) / unit * unit, unit);
}

template <class T>
void add_as(const Rows& from, const Rows& to) {
  for (Index t = 0; t < to.tokens; ++t) {
    const T* a = from.at<const T>(t);
    T* b = to.at<T>(t);
    for (Index i = 0; i < to.heads * to.channels; ++i) b[i] += a[i];
  }
}

void check_same_shape(const Rows& from, const Rows& to) {
  require(same_shape(from, to), "rows must have the same shape: ", from.tokens, " x ", from.heads, " x ", from.channels,
          " and ", to.tokens, " x ", to.heads, " x ", to.channels);
}

void check_same_type(const Rows& from, const Rows& to) {
  check_same_shape(from, to);
  require(from.type == to.type, "rows must have the same type to be copied");
}

void check_sums(const Rows& from, const Rows& to) {
  check_same_shape(from, to);
  require(from.type == to.type && (to.type == DType::f32 || to.type == DType::f64),
          "only f32 and f64 rows can be added");
}

}  // namespace

void Device::convert(const Rows& from, const Rows& to) { annulus::convert(from, to); }
void Device::copy_rows(const Rows& from, const Rows& to) { annulus::copy_rows(from, to); }
void Device::clear(const Rows& rows) { annulus::clear(rows); }
void Device::add(const Rows& from, const Rows& to) { annulus::add(from, to); }

std::string CpuDevice::name() const { return "cpu"; }

CpuDevice::~CpuDevice() { give_back(); }

std::byte* CpuDevice::allocate(Index bytes) {
  // Rows of one head lie far apart: in small pages every one or two of them take a walk through the tables of pages.
  const std::size_t rounded = whole_units(bytes);
  if (std::byte* kept = take_kept(rounded)) return kept;
  const std::size_t unit = unit_of(bytes);
  void* memory = std::aligned_alloc(unit, rounded);
  if (memory == nullptr) {
    give_back();
    memory = std::aligned_alloc(unit, rounded);
  }
  require<Failure::fit>(memory != nullptr, "there is not enough memory for ", bytes, " bytes");
#if defined(MADV_HUGEPAGE)
  if (unit == huge_page) madvise(memory, rounded, MADV_HUGEPAGE);  // a wish: nothing is lost when it is not granted
#endif
  return static_cast<std::byte*>(memory);
}

void CpuDevice::release(std::byte* memory, Index bytes) noexcept {
  if (memory == nullptr || !keep(memory, whole_units(bytes))) std::free(memory);
}

void CpuDevice::use_threads(int threads) { threads_ = std::max(1, threads); }

// Calls work(begin, end) for parts of the rows, which are all of them together.
template <class Work>
void CpuDevice::in_portions(const Rows& rows, const Work& work) const {
  const Index portions = std::min<Index>({threads_, rows.bytes() / least_portion, rows.tokens});
  if (portions < 2) return work(Index{0}, rows.tokens);
  for_each_item(threads_, portions,
                [&](Index n, int) { work(rows.tokens * n / portions, rows.tokens * (n + 1) / portions); });
}

void CpuDevice::convert(const Rows& from, const Rows& to) {
  check_same_shape(from, to);
  in_portions(to, [&](Index a, Index b) { annulus::convert(from.slice(a, b), to.slice(a, b)); });
}
void CpuDevice::copy_rows(const Rows& from, const Rows& to) {
  check_same_type(from, to);
  in_portions(to, [&](Index a, Index b) { annulus::copy_rows(from.slice(a, b), to.slice(a, b)); });
}
void CpuDevice::clear(const Rows& rows) {
  in_portions(rows, [&](Index a, Index b) { annulus::clear(rows.slice(a, b)); });
}
void CpuDevice::add(const Rows& from, const Rows& to) {
  check_sums(from, to);
  in_portions(to, [&](Index a, Index b) { annulus::add(from.slice(a, b), to.slice(a, b)); });
}

// The shortest that is long enough and not much too long, of equal ones the last released; null when there is none.
std::byte* CpuDevice::take_kept(std::size_t bytes) {
  if (bytes < least_kept) return nullptr;
  const std::lock_guard lock(mutex_);
  auto best = kept_.end();
  for (auto it = kept_.begin(); it != kept_.end(); ++it)
    if (it->bytes >= bytes && it->bytes <= bytes + bytes / 8 && (best == kept_.end() || it->bytes <= best->bytes))
      best = it;
  if (best == kept_.end()) return nullptr;
  const Piece piece = *best;
  if (piece.bytes > bytes) longer_[piece.memory] = piece.bytes;
  kept_.erase(best);
  kept_bytes_ -= piece.bytes;
  return piece.memory;
}

bool CpuDevice::keep(std::byte* memory, std::size_t bytes) noexcept {
  if (bytes < least_kept) return false;
  const std::lock_guard lock(mutex_);
  if (const auto known = longer_.extract(memory)) bytes = known.mapped();
  if (bytes > most_kept) return false;
  try {
    kept_.push_back({memory, bytes});
  } catch (const std::bad_alloc&) {
    return false;
  }
  kept_bytes_ += bytes;
  while (kept_bytes_ > most_kept) drop_oldest();
  return true;
}

void CpuDevice::drop_oldest() noexcept {
  std::free(kept_.front().memory);
  kept_bytes_ -= kept_.front().bytes;
  kept_.erase(kept_.begin());
}

void CpuDevice::give_back() noexcept {
  const std::lock_guard lock(mutex_);
  while (!kept_.empty()) drop_oldest();
}

void CpuDevice::zero(std::byte* memory, Index bytes) { std::memset(memory, 0, static_cast<std::size_t>(bytes)); }

void CpuDevice::copy(std::byte* to, const std::byte* from, Index bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

Array::Array(Device& device, DType type, Index tokens, Index heads, Index channels)
    : device_(&device), rows_(dense_rows(nullptr, type, tokens, heads, channels, device.place())) {
  require(tokens >= 0 && heads >= 0 && channels >= 0, "an array's shape must not be negative: ", tokens, " x ", heads,
          " x ", channels);
  const Index most = std::numeric_limits<Index>::max() / bytes_of(type);
  require<Failure::fit>(heads == 0 || channels == 0 || tokens <= most / heads / channels, "there is no memory for ",
                        tokens, " x ", heads, " x ", channels, " elements");
  rows_.data = device.allocate(rows_.bytes());
}

Array Array::zeros(Device& device, DType type, Index tokens, Index heads, Index channels) {
  Array array(device, type, tokens, heads, channels);
  device.zero(array.rows_.data, array.rows_.bytes());
  return array;
}

Array::Array(Array&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)), rows_(std::exchange(other.rows_, {})) {}

Array& Array::operator=(Array&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(rows_, other.rows_);
  return *this;
}

Array::~Array() {
  if (device_ != nullptr) device_->release(rows_.data, rows_.bytes());
}

void check_layout(std::string_view what, const Rows& rows) {
  if (rows.bytes() == 0) return;
  require(!rows.absent(), what, " must not be absent");
  const Index element = bytes_of(rows.type);
  require((rows.pitch >= rows.row_bytes() || rows.tokens == 1) && rows.pitch % element == 0 &&
              reinterpret_cast<std::uintptr_t>(rows.data) % static_cast<std::uintptr_t>(element) == 0,
          what, " must be aligned to its elements: pitch = ", rows.pitch, " bytes, row = ", rows.row_bytes(), " bytes");
}

void convert(const Rows& from, const Rows& to) {
  check_same_shape(from, to);
  if (from.type == to.type) return copy_rows(from, to);
  for_type(from.type, [&](auto source) {
    for_type(to.type, [&](auto target) {
      using Source = decltype(source);
      using Target = decltype(target);
      for (Index t = 0; t < from.tokens; ++t) {
        const auto* x = from.at<const typename Source::Stored>(t);
        auto* y = to.at<typename Target::Stored>(t);
        for (Index i = 0; i < from.heads * from.channels; ++i) y[i] = Target::stored(Source::value(x[i]));
      }
    });
  });
}

void copy_rows(const Rows& from, const Rows& to) {
  check_same_type(from, to);
  if (from.bytes() == 0) return;
  if (from.dense() && to.dense()) {
    std::memcpy(to.data, from.data, static_cast<std::size_t>(from.bytes()));
    return;
  }
  for (Index t = 0; t < from.tokens; ++t)
    std::memcpy(to.data + t * to.pitch, from.data + t * from.pitch, static_cast<std::size_t>(from.row_bytes()));
}

void clear(const Rows& rows) {
  if (rows.dense() && rows.bytes() > 0) {
    std::memset(rows.data, 0, static_cast<std::size_t>(rows.bytes()));
    return;
  }
  for (Index t = 0; t < rows.tokens && rows.row_bytes() > 0; ++t)
    std::memset(rows.data + t * rows.pitch, 0, static_cast<std::size_t>(rows.row_bytes()));
}

void add(const Rows& from, const Rows& to) {
  check_sums(from, to);
  if (to.type == DType::f32) return add_as<float>(from, to);
  add_as<double>(from, to);
}

}  // namespace annulus

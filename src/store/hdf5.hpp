#pragma once
#include <hdf5.h>

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/store/element.hpp"

namespace annulus::store {

/// Held around every use of HDF5, which is not thread-safe while ranks may be threads. While it lives HDF5 prints
/// nothing. May be taken again by the thread that has it. Declare it before the first Id.
class Hdf5Lock {
 public:
  Hdf5Lock();
  ~Hdf5Lock();
  Hdf5Lock(const Hdf5Lock&) = delete;
  Hdf5Lock& operator=(const Hdf5Lock&) = delete;

 private:
  std::lock_guard<std::recursive_mutex> guard_;
  H5E_auto2_t print_ = nullptr;
  void* print_to_ = nullptr;
};

/// Owns an HDF5 identifier.
class Id {
 public:
  using Close = herr_t (*)(hid_t);
  Id() = default;
  Id(hid_t id, Close how) : id_(id), close_(how) {}
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Id& operator=(Id&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Id() {
    if (id_ >= 0) close_(id_);
  }
  hid_t get() const { return id_; }
  bool valid() const { return id_ >= 0; }
  /// Closes now; false when that fails (the file could not be written).
  bool close() { return id_ < 0 || close_(std::exchange(id_, H5I_INVALID_HID)) >= 0; }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

/// HDF5's own words for its last error, ": ..." or nothing.
std::string hdf5_reason();

/// The one place where HDF5's codes become Error: throws (file) "WHAT: HDF5's reason" for a negative code.
template <class Code>
Code checked(Code code, const std::string& what) {
  if (code < 0) throw Error(Failure::file, what + hdf5_reason());
  return code;
}
inline Id owned(hid_t id, Id::Close how, const std::string& what) { return {checked(id, what), how}; }

/// The type for files (and memory: the room needs a little-endian machine).
Id type_of(Element element);
/// What a type of any byte order is; nothing for types outside Element.
std::optional<Element> element_of_type(hid_t type);

/// Any number of values that HDF5 delivers at once, as the widest of their class: text, Index or double. `read` is
/// called once with a memory type and room for them. Throws Error (file) for other classes; a u64 beyond Index becomes
/// its largest.
Value read_value(hid_t type, hid_t space, bool scalar, const std::function<herr_t(hid_t, void*)>& read,
                 const std::string& what);
/// The same for one attribute.
Value read_attribute(hid_t attribute, const std::string& what);
/// Makes or replaces an attribute.
void write_attribute(hid_t object, const std::string& name, const Value& value, const std::string& what);

}  // namespace annulus::store

#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// Of the library that is loaded: "1.10.8".
std::string hdf5_version();

/// What a dataset holds. bf16 and f16 are HDF5 float types of 16 bits (1 + 8 + 7 and 1 + 5 + 10), recognised in either
/// byte order by their fields; files are written in little-endian order. text is variable-length UTF-8, for small
/// datasets.
enum class Element : std::uint8_t { f32, bf16, f16, f64, i8, i16, i32, i64, u8, u16, u32, u64, text };

Element element_of(DType type);
/// Nothing for integers and text.
std::optional<DType> dtype_of(Element element);
constexpr bool is_integer(Element element) { return Element::i8 <= element && element <= Element::u64; }
/// Bytes of one element in a file; 0 for text.
Index bytes_of(Element element);
std::string_view name_of(Element element);

/// A small value: an attribute, or a whole small dataset. One or many; text is UTF-8.
using Value =
    std::variant<std::string, Index, double, std::vector<std::string>, std::vector<Index>, std::vector<double>>;

/// A dataset's shape and what it holds.
struct Shape {
  std::vector<Index> dims;
  Element element = Element::f32;
  /// Elements in all; 1 for a scalar.
  Index elements() const;
  bool operator==(const Shape&) const = default;
};

/// "[16, 8, 64] bf16"
std::string text_of(const Shape& shape);

}  // namespace annulus

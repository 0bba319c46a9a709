#pragma once
#include <cstdint>
#include <string_view>

namespace annulus {

/// Token positions, counts and byte counts. Signed, so that differences and loops are safe; 64-bit, so that nothing
/// overflows at 46,341 tokens squared.
using Index = std::int64_t;
using Rank = int;

/// What the elements of Rows are stored and exchanged as. Accumulation is f32 (f64 in the reference kernel).
enum class DType : std::uint8_t { f32, bf16, f16, f64 };

/// Where bytes live.
enum class Place : std::uint8_t { cpu, cuda };

constexpr Index bytes_of(DType type) { return type == DType::f64 ? 8 : type == DType::f32 ? 4 : 2; }

std::string_view name_of(DType type);
std::string_view name_of(Place place);
/// Throws Error (usage) for anything but f32, bf16, f16, f64.
DType parse_dtype(std::string_view name);

/// The one door to 32-bit vendor interfaces. Throws Error when the value does not fit.
int narrow(Index value);

constexpr Index floor_div(Index a, Index b) { return a / b - static_cast<Index>(a % b != 0 && (a < 0) != (b < 0)); }
constexpr Index ceil_div(Index a, Index b) { return -floor_div(-a, b); }

}  // namespace annulus

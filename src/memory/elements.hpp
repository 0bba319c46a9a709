#pragma once
#include <bit>
#include <cstdint>

#include "annulus/base/types.hpp"
#include "annulus/memory/numbers16.hpp"

// One element type each: how it is stored, and its value. Constant expressions, so that CPU and GPU share them.

namespace annulus {

/// The float next to x that is odd in its last bit, or x itself when it is a float. Rounding it again to 16 bits then
/// gives what rounding x once would have given, because no odd float is half way between two 16-bit numbers.
constexpr float to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  const double back = nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (x != x || back == x || (bits & 1U) != 0) return nearest;
  const bool below = (back < 0 ? -back : back) < (x < 0 ? -x : x);
  bits += below ? 1U : ~0U;
  return std::bit_cast<float>(bits);
}

struct AsF32 {
  using Stored = float;
  static constexpr DType type = DType::f32;
  static constexpr float value(float x) { return x; }
  static constexpr float stored(float x) { return x; }
  static constexpr float stored(double x) { return static_cast<float>(x); }
};
struct AsF64 {
  using Stored = double;
  static constexpr DType type = DType::f64;
  static constexpr double value(double x) { return x; }
  static constexpr double stored(double x) { return x; }
};
struct AsBf16 {
  using Stored = std::uint16_t;
  static constexpr DType type = DType::bf16;
  static constexpr float value(std::uint16_t x) { return from_bf16(x); }
  static constexpr std::uint16_t stored(float x) { return to_bf16(x); }
  static constexpr std::uint16_t stored(double x) { return to_bf16(to_odd(x)); }
};
struct AsF16 {
  using Stored = std::uint16_t;
  static constexpr DType type = DType::f16;
  static constexpr float value(std::uint16_t x) { return from_f16(x); }
  static constexpr std::uint16_t stored(float x) { return to_f16(x); }
  static constexpr std::uint16_t stored(double x) { return to_f16(to_odd(x)); }
};

/// Calls work(As...{}) for the type.
template <class Work>
void for_type(DType type, const Work& work) {
  switch (type) {
    case DType::f32:
      return work(AsF32{});
    case DType::f64:
      return work(AsF64{});
    case DType::bf16:
      return work(AsBf16{});
    case DType::f16:
      return work(AsF16{});
  }
}

}  // namespace annulus

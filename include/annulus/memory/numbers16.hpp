#pragma once
#include <bit>
#include <cstdint>

namespace annulus {

/// bf16 and f16 bits to f32, exactly; f32 to bits, rounded to nearest even. NaN stays NaN, overflow becomes infinity.
constexpr float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

constexpr std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);  // quiet NaN
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

constexpr float from_f16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16, rest = half & 0x7fffU;
  if (rest >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | ((rest & 0x3ffU) << 13));
  if (rest >= 0x0400U) return std::bit_cast<float>(sign | ((rest << 13) + (112U << 23)));
  const float tiny = static_cast<float>(rest) * 0x1p-24F;  // subnormal: rest units of 2^-24
  return (sign != 0) ? -tiny : tiny;
}

constexpr std::uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t rest = bits & 0x7fffffffU;
  if (rest > 0x7f800000U) return sign | 0x7e00U;
  if (rest >= 0x477ff000U) return sign | 0x7c00U;  // 65,520 and above round to infinity
  if (rest < 0x38800000U) {                        // below 2^-14: count units of 2^-24, ties to even
    const float units = std::bit_cast<float>(rest) * 0x1p24F;
    const auto whole = static_cast<std::uint32_t>(units);
    const float left = units - static_cast<float>(whole);
    const std::uint32_t up = left > 0.5F || (left == 0.5F && (whole & 1U) != 0) ? 1U : 0U;
    return static_cast<std::uint16_t>(sign | (whole + up));
  }
  const std::uint32_t moved = rest - (112U << 23);
  return static_cast<std::uint16_t>(sign | ((moved + 0xfffU + ((moved >> 13) & 1U)) >> 13));
}

}  // namespace annulus

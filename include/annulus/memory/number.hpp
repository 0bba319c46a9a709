#pragma once
#include "annulus/memory/numbers16.hpp"
#include "annulus/memory/rows.hpp"

namespace annulus {

/// One element of CPU rows of any type, exactly. For the reference kernel, checks and tests: too slow for anything else.
inline double number(const Rows& rows, Index token, Index head = 0, Index channel = 0) {
  switch (rows.type) {
    case DType::f32:
      return rows.at<const float>(token, head)[channel];
    case DType::f64:
      return rows.at<const double>(token, head)[channel];
    case DType::bf16:
      return from_bf16(rows.at<const std::uint16_t>(token, head)[channel]);
    case DType::f16:
      return from_f16(rows.at<const std::uint16_t>(token, head)[channel]);
  }
  return 0;
}

}  // namespace annulus

#include "annulus/base/types.hpp"

#include <limits>

#include "annulus/base/error.hpp"

namespace annulus {

std::string_view name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::f64:
      return "f64";
  }
  return "unknown";
}

std::string_view name_of(Place place) { return place == Place::cuda ? "cuda" : "cpu"; }

DType parse_dtype(std::string_view name) {
  for (DType type : {DType::f32, DType::bf16, DType::f16, DType::f64})
    if (name_of(type) == name) return type;
  throw Error(Failure::usage, sentence("dtype must be f32, bf16, f16 or f64: it is '", name, "'"));
}

int narrow(Index value) {
  require(value >= std::numeric_limits<int>::min() && value <= std::numeric_limits<int>::max(),
          "a count must fit in 32 bits at a vendor interface: it is ", value);
  return static_cast<int>(value);
}

}  // namespace annulus

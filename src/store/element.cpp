#include "annulus/store/element.hpp"

#include "annulus/base/error.hpp"

namespace annulus {

Element element_of(DType type) {
  switch (type) {
    case DType::f32:
      return Element::f32;
    case DType::bf16:
      return Element::bf16;
    case DType::f16:
      return Element::f16;
    case DType::f64:
      return Element::f64;
  }
  return Element::f32;
}

std::optional<DType> dtype_of(Element element) {
  switch (element) {
    case Element::f32:
      return DType::f32;
    case Element::bf16:
      return DType::bf16;
    case Element::f16:
      return DType::f16;
    case Element::f64:
      return DType::f64;
    default:
      return std::nullopt;
  }
}

Index bytes_of(Element element) {
  switch (element) {
    case Element::i8:
    case Element::u8:
      return 1;
    case Element::bf16:
    case Element::f16:
    case Element::i16:
    case Element::u16:
      return 2;
    case Element::f32:
    case Element::i32:
    case Element::u32:
      return 4;
    case Element::f64:
    case Element::i64:
    case Element::u64:
      return 8;
    case Element::text:
      return 0;
  }
  return 0;
}

std::string_view name_of(Element element) {
  switch (element) {
    case Element::f32:
      return "f32";
    case Element::bf16:
      return "bf16";
    case Element::f16:
      return "f16";
    case Element::f64:
      return "f64";
    case Element::i8:
      return "i8";
    case Element::i16:
      return "i16";
    case Element::i32:
      return "i32";
    case Element::i64:
      return "i64";
    case Element::u8:
      return "u8";
    case Element::u16:
      return "u16";
    case Element::u32:
      return "u32";
    case Element::u64:
      return "u64";
    case Element::text:
      return "text";
  }
  return "?";
}

Index Shape::elements() const {
  Index product = 1;
  for (const Index dim : dims) product *= dim;
  return product;
}

std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.dims.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape.dims[i]);
  return text + "] " + std::string(name_of(shape.element));
}

}  // namespace annulus

#include "hdf5.hpp"

#include <array>
#include <bit>

namespace annulus::store {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are written in memory order: little-endian machines only");

std::recursive_mutex& hdf5_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

herr_t keep_innermost(unsigned n, const H5E_error2_t* error, void* text) {
  if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

struct FloatFields {
  Element element;
  std::size_t bytes, sign, exponent_at, exponent_bits, mantissa_bits, bias;
};
constexpr std::array<FloatFields, 4> floats{{{Element::f32, 4, 31, 23, 8, 23, 127},
                                             {Element::bf16, 2, 15, 7, 8, 7, 127},
                                             {Element::f16, 2, 15, 10, 5, 10, 15},
                                             {Element::f64, 8, 63, 52, 11, 52, 1023}}};

bool matches(const FloatFields& f, hid_t type) {
  std::size_t sign = 0, exponent = 0, exponent_bits = 0, mantissa = 0, mantissa_bits = 0;
  return H5Tget_size(type) == f.bytes && H5Tget_precision(type) == f.bytes * 8 && H5Tget_offset(type) == 0 &&
         H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits) >= 0 && sign == f.sign &&
         exponent == f.exponent_at && exponent_bits == f.exponent_bits && mantissa == 0 &&
         mantissa_bits == f.mantissa_bits && H5Tget_ebias(type) == f.bias && H5Tget_norm(type) == H5T_NORM_IMPLIED;
}

std::optional<Element> integer_of(hid_t type) {
  const std::size_t bytes = H5Tget_size(type);
  const H5T_sign_t sign = H5Tget_sign(type);
  if (H5Tget_precision(type) != bytes * 8 || (sign != H5T_SGN_2 && sign != H5T_SGN_NONE)) return std::nullopt;
  switch (bytes) {
    case 1:
      return sign == H5T_SGN_2 ? Element::i8 : Element::u8;
    case 2:
      return sign == H5T_SGN_2 ? Element::i16 : Element::u16;
    case 4:
      return sign == H5T_SGN_2 ? Element::i32 : Element::u32;
    case 8:
      return sign == H5T_SGN_2 ? Element::i64 : Element::u64;
    default:
      return std::nullopt;
  }
}

/// HDF5 wants fields to stay inside the size at each step: first the fields, then the size, then the bias.
Id half_type(const FloatFields& f) {
  const std::string what = "HDF5 cannot make a 16-bit float type";
  Id type = owned(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, what);
  checked(H5Tset_fields(type.get(), f.sign, f.exponent_at, f.exponent_bits, 0, f.mantissa_bits), what);
  checked(H5Tset_precision(type.get(), f.bytes * 8), what);
  checked(H5Tset_size(type.get(), f.bytes), what);
  checked(H5Tset_ebias(type.get(), f.bias), what);
  return type;
}

Id text_type() {
  const std::string what = "HDF5 cannot make a text type";
  Id type = owned(H5Tcopy(H5T_C_S1), H5Tclose, what);
  checked(H5Tset_size(type.get(), H5T_VARIABLE), what);
  checked(H5Tset_cset(type.get(), H5T_CSET_UTF8), what);
  return type;
}

}  // namespace

Hdf5Lock::Hdf5Lock() : guard_(hdf5_mutex()) {
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_to_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Hdf5Lock::~Hdf5Lock() { H5Eset_auto2(H5E_DEFAULT, print_, print_to_); }

std::string hdf5_reason() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  return text.empty() ? "" : " (HDF5: " + text + ")";
}

Id type_of(Element element) {
  const auto copy = [](hid_t type) { return owned(H5Tcopy(type), H5Tclose, "HDF5 cannot copy a type"); };
  switch (element) {
    case Element::f32:
      return copy(H5T_IEEE_F32LE);
    case Element::f64:
      return copy(H5T_IEEE_F64LE);
    case Element::bf16:
      return half_type(floats[1]);
    case Element::f16:
      return half_type(floats[2]);
    case Element::i8:
      return copy(H5T_STD_I8LE);
    case Element::i16:
      return copy(H5T_STD_I16LE);
    case Element::i32:
      return copy(H5T_STD_I32LE);
    case Element::i64:
      return copy(H5T_STD_I64LE);
    case Element::u8:
      return copy(H5T_STD_U8LE);
    case Element::u16:
      return copy(H5T_STD_U16LE);
    case Element::u32:
      return copy(H5T_STD_U32LE);
    case Element::u64:
      return copy(H5T_STD_U64LE);
    case Element::text:
      return text_type();
  }
  throw Error(Failure::usage, "there is no such element type");
}

std::optional<Element> element_of_type(hid_t type) {
  const H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_STRING) return Element::text;
  if (kind != H5T_FLOAT && kind != H5T_INTEGER) return std::nullopt;
  const H5T_order_t order = H5Tget_order(type);
  if (order != H5T_ORDER_LE && order != H5T_ORDER_BE) return std::nullopt;
  if (kind == H5T_INTEGER) return integer_of(type);
  for (const FloatFields& fields : floats)
    if (matches(fields, type)) return fields.element;
  return std::nullopt;
}

}  // namespace annulus::store

namespace annulus {

std::string hdf5_version() {
  const store::Hdf5Lock lock;
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return sentence(major, ".", minor, ".", release);
}

}  // namespace annulus

#include <cstring>
#include <span>

#include "hdf5.hpp"

namespace annulus::store {
namespace {

constexpr hssize_t most_values = hssize_t{1} << 26;
constexpr std::size_t most_bytes = std::size_t{1} << 30;

/// One or many of T as a Value.
template <class T>
Value packed(std::vector<T> values, bool scalar) {
  if (scalar) return std::move(values.at(0));
  return values;
}

std::vector<std::string> read_variable_texts(hid_t type, hid_t space, std::size_t count,
                                             const std::function<herr_t(hid_t, void*)>& read, const std::string& what) {
  Id memory = type_of(Element::text);
  checked(H5Tset_cset(memory.get(), H5Tget_cset(type)), what);
  std::vector<char*> pointers(count, nullptr);
  checked(read(memory.get(), pointers.data()), what + ": its text cannot be read");
  std::vector<std::string> texts;
  for (const char* pointer : pointers) texts.emplace_back(pointer == nullptr ? "" : pointer);
  H5Dvlen_reclaim(memory.get(), space, H5P_DEFAULT, pointers.data());
  return texts;
}

std::vector<std::string> read_fixed_texts(hid_t type, std::size_t count,
                                          const std::function<herr_t(hid_t, void*)>& read, const std::string& what) {
  const std::size_t width = H5Tget_size(type);
  require<Failure::file>(width > 0 && width <= most_bytes / std::max<std::size_t>(1, count), what,
                         ": its text is too long: ", count, " x ", width, " bytes");
  std::vector<char> bytes(count * width);
  checked(read(type, bytes.data()), what + ": its text cannot be read");
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < count; ++i) {
    const char* begin = bytes.data() + i * width;
    std::string text(begin, ::strnlen(begin, width));
    if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) text.erase(text.find_last_not_of(' ') + 1);
    texts.push_back(std::move(text));
  }
  return texts;
}

Id copied(Element element) { return type_of(element); }

}  // namespace

Value read_value(hid_t type, hid_t space, bool scalar, const std::function<herr_t(hid_t, void*)>& read_some,
                 const std::string& what) {
  const hssize_t points = checked(H5Sget_simple_extent_npoints(space), what + ": its shape cannot be read");
  require<Failure::file>(points <= most_values, what, " is too long to be read at once: ", points, " values");
  if (points == 0) scalar = false;
  const auto count = static_cast<std::size_t>(points);
  // HDF5 refuses to read nothing into nowhere.
  const auto read = [&](hid_t memory, void* to) { return count == 0 ? herr_t{0} : read_some(memory, to); };
  switch (H5Tget_class(type)) {
    case H5T_STRING: {
      const htri_t variable = checked(H5Tis_variable_str(type), what + ": its type cannot be read");
      return packed(variable > 0 ? read_variable_texts(type, space, count, read, what)
                                 : read_fixed_texts(type, count, read, what),
                    scalar);
    }
    case H5T_INTEGER: {
      std::vector<Index> values(count);
      checked(read(copied(Element::i64).get(), values.data()), what + ": its integers cannot be read");
      return packed(std::move(values), scalar);
    }
    case H5T_FLOAT: {
      std::vector<double> values(count);
      checked(read(copied(Element::f64).get(), values.data()), what + ": its numbers cannot be read");
      return packed(std::move(values), scalar);
    }
    default:
      throw Error(Failure::file, what + " is neither text nor numbers");
  }
}

Value read_attribute(hid_t attribute, const std::string& what) {
  const Id type = owned(H5Aget_type(attribute), H5Tclose, what + ": its type cannot be read");
  const Id space = owned(H5Aget_space(attribute), H5Sclose, what + ": its shape cannot be read");
  const bool scalar = H5Sget_simple_extent_type(space.get()) == H5S_SCALAR;
  return read_value(
      type.get(), space.get(), scalar, [&](hid_t memory, void* to) { return H5Aread(attribute, memory, to); }, what);
}

namespace {

/// What HDF5 needs to write a Value: a type, how many (scalar: one without a dimension), and where they are.
struct Outgoing {
  Element element = Element::text;
  bool scalar = false;
  std::size_t count = 1;
  const void* bytes = nullptr;
  std::vector<const char*> pointers = {};
};

Outgoing outgoing(const Value& value) {
  Outgoing out;
  const auto many = [&out](Element element, const auto& list) {
    out.element = element;
    out.count = list.size();
    out.bytes = list.data();
  };
  const auto one = [&out](Element element, const auto& number) {
    out.element = element;
    out.scalar = true;
    out.bytes = &number;
  };
  if (const auto* text = std::get_if<std::string>(&value)) {
    out.scalar = true;
    out.pointers = {text->c_str()};
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    for (const std::string& each : *texts) out.pointers.push_back(each.c_str());
    out.count = texts->size();
  } else if (const auto* index = std::get_if<Index>(&value)) {
    one(Element::i64, *index);
  } else if (const auto* number = std::get_if<double>(&value)) {
    one(Element::f64, *number);
  } else if (const auto* indices = std::get_if<std::vector<Index>>(&value)) {
    many(Element::i64, *indices);
  } else if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
    many(Element::f64, *numbers);
  }
  return out;
}

}  // namespace

void write_attribute(hid_t object, const std::string& name, const Value& value, const std::string& what) {
  const Outgoing out = outgoing(value);
  const Id type = type_of(out.element);
  const hsize_t dims[1] = {out.count};
  const Id space = owned(out.scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, dims, nullptr), H5Sclose, what);
  if (checked(H5Aexists(object, name.c_str()), what) > 0) checked(H5Adelete(object, name.c_str()), what);
  const Id named = owned(H5Pcreate(H5P_ATTRIBUTE_CREATE), H5Pclose, what);
  checked(H5Pset_char_encoding(named.get(), H5T_CSET_UTF8), what);
  Id attribute = owned(H5Acreate2(object, name.c_str(), type.get(), space.get(), named.get(), H5P_DEFAULT), H5Aclose,
                       what + ": the attribute cannot be made");
  const void* bytes = out.element == Element::text ? static_cast<const void*>(out.pointers.data()) : out.bytes;
  if (out.count > 0) checked(H5Awrite(attribute.get(), type.get(), bytes), what + ": the attribute cannot be written");
  require<Failure::file>(attribute.close(), what, ": the attribute cannot be closed");
}

}  // namespace annulus::store

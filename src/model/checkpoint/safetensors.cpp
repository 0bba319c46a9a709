#include "safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <utility>

#include "annulus/base/error.hpp"
#include "json.hpp"

namespace annulus::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian, and tensors are used in place");

constexpr Index most_header_bytes = 100'000'000;  // as the format's own library has it

struct Element {
  std::string_view word;
  Index bits;
  DType type;
  bool is_read;
};
constexpr std::array elements{
    Element{"F32", 32, DType::f32, true}, Element{"F16", 16, DType::f16, true}, Element{"BF16", 16, DType::bf16, true},
    Element{"F64", 64, DType::f64, true}, Element{"BOOL", 8, {}, false},        Element{"U8", 8, {}, false},
    Element{"I8", 8, {}, false},          Element{"U16", 16, {}, false},        Element{"I16", 16, {}, false},
    Element{"U32", 32, {}, false},        Element{"I32", 32, {}, false},        Element{"U64", 64, {}, false},
    Element{"I64", 64, {}, false},        Element{"F8_E4M3", 8, {}, false},     Element{"F8_E5M2", 8, {}, false},
    Element{"F8_E8M0", 8, {}, false},
};

const Element* element_of(std::string_view word) {
  const auto* found = std::ranges::find(elements, word, &Element::word);
  return found == elements.end() ? nullptr : found;
}

// The error of one tensor.
template <class... Parts>
void demand(bool holds, const std::string& path, const std::string& name, const Parts&... parts) {
  require<Failure::file>(holds, path, ": tensor '", name, "' ", parts...);
}

// Whole numbers from 0 on; false when there is anything else.
bool read_numbers(const nlohmann::json& list, std::vector<Index>& into) {
  if (!list.is_array()) return false;
  for (const auto& number : list) {
    if (!number.is_number_unsigned()) return false;
    const auto value = number.get<std::uint64_t>();
    if (value > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) return false;
    into.push_back(static_cast<Index>(value));
  }
  return true;
}

// Bytes of so many elements, or -1 when no file could have them.
Index bytes_needed(const std::vector<Index>& dims, Index element_bits) {
  if (std::ranges::find(dims, 0) != dims.end()) return 0;
  Index bits = element_bits;
  for (const Index dim : dims) {
    if (dim > std::numeric_limits<Index>::max() / bits) return -1;
    bits *= dim;
  }
  return bits / 8;
}

Entry read_entry(const std::string& path, const std::string& name, const nlohmann::json& about,
                 std::span<const std::byte> data) {
  demand(about.is_object() && about.contains("dtype") && about.contains("shape") && about.contains("data_offsets"),
         path, name, "must have a dtype, a shape and data_offsets");
  demand(about["dtype"].is_string(), path, name, "must have a dtype that is a word");
  Entry entry{.name = name, .type = about["dtype"].get<std::string>(), .dims = {}, .bytes = {}};
  demand(read_numbers(about["shape"], entry.dims), path, name, "must have a shape of whole numbers from 0 on");
  std::vector<Index> offsets;
  demand(read_numbers(about["data_offsets"], offsets) && offsets.size() == 2, path, name, "must have two data_offsets");
  const Index begin = offsets[0], end = offsets[1], most = static_cast<Index>(data.size());
  demand(begin <= end && end <= most, path, name, "must lie in the file, which has ", most,
         " bytes of data, but lies at bytes ", begin, " to ", end, ": is the file complete?");
  if (const Element* element = element_of(entry.type)) {
    const Index needed = bytes_needed(entry.dims, element->bits);
    demand(needed == end - begin, path, name, "has ", end - begin, " bytes, which is not what its shape needs");
  }
  entry.bytes = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  return entry;
}

}  // namespace

std::vector<Entry> read_safetensors(const std::string& path, std::span<const std::byte> file) {
  constexpr std::size_t length_bytes = 8;
  require<Failure::file>(file.size() >= length_bytes, path,
                         ": a safetensors file has at least 8 bytes, but this one has ", file.size());
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  require<Failure::file>(
      length <= file.size() - length_bytes && length <= static_cast<std::uint64_t>(most_header_bytes), path,
      ": its header would have ", length, " bytes, but the file has ", file.size(), " and a header at most ",
      most_header_bytes, ": is it a safetensors file, and complete?");
  const auto header_bytes = static_cast<std::size_t>(length);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + length_bytes, header_bytes);
  const nlohmann::json header = parse_json(path, text);
  require<Failure::file>(header.is_object(), path, ": its header must be a JSON object");

  const auto data = file.subspan(length_bytes + header_bytes);
  std::vector<Entry> entries;
  for (const auto& [name, about] : header.items())
    if (name != "__metadata__") entries.push_back(read_entry(path, name, about, data));
  std::ranges::sort(entries, {}, [](const Entry& entry) { return std::pair(entry.bytes.data(), entry.bytes.size()); });
  for (std::size_t n = 1; n < entries.size(); ++n) {
    const Entry &before = entries[n - 1], &after = entries[n];
    require<Failure::file>(before.bytes.data() + before.bytes.size() <= after.bytes.data(), path, ": tensors '",
                           before.name, "' and '", after.name, "' lie in the same bytes");
  }
  return entries;
}

const DType* dtype_of(std::string_view type) {
  const Element* element = element_of(type);
  return element != nullptr && element->is_read ? &element->type : nullptr;
}

}  // namespace annulus::checkpoint

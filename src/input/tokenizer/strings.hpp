#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace annulus {

/// Looks texts up without copies of them.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using StringIds = std::unordered_map<std::string, std::uint32_t, StringHash, std::equal_to<>>;

inline std::optional<std::uint32_t> id_in(const StringIds& ids, std::string_view text) {
  const auto found = ids.find(text);
  return found == ids.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace annulus

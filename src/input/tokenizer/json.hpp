#pragma once
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus {

/// A value of a JSON file that knows its place, for sentences about it: "FILE: pre_tokenizer.pattern must be ...".
/// A view: the document outlives it.
class Node {
 public:
  Node(const nlohmann::json& value, const std::string& file, std::string place = "")
      : value_(&value), file_(&file), place_(std::move(place)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& place() const { return place_; }
  bool is_null() const { return value_->is_null(); }

  /// Throws Error (file): the file, the place, then the parts.
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    throw Error(Failure::file, sentence(*file_, ": ", place_, place_.empty() ? "" : " ", parts...));
  }
  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    if (!holds) refuse(parts...);
  }

  /// The value of a key, null where there is none. Refuses what is no object.
  Node at(std::string_view key) const;
  /// The entries of an array, refusing what is none.
  std::size_t entries() const;
  Node entry(std::size_t n) const;

  std::string text() const;
  /// What text() gives; `otherwise` where the value is null.
  std::string text_or(std::string_view otherwise) const { return is_null() ? std::string(otherwise) : text(); }
  bool flag() const;
  bool flag_or(bool otherwise) const { return is_null() ? otherwise : flag(); }
  /// A token's id: a whole number below `ids_end`.
  std::uint32_t id() const;

  /// What the key "type" says.
  std::string type() const;

 private:
  const nlohmann::json* value_;
  const std::string* file_;
  std::string place_;
};

/// Ids are below this, forty times what vocabularies have come to.
inline constexpr std::uint32_t ids_end = std::uint32_t{1} << 24;

/// A text in quotation marks, cut where it is long: what sentences quote from files.
std::string quoted(std::string_view text);

/// Reads a JSON document. Throws Error (file) where the file cannot be read, is larger than 1 GiB or is not JSON.
nlohmann::json read_json(const std::string& file);

}  // namespace annulus

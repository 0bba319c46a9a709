#include "input/tokenizer/json.hpp"

#include "input/text_file.hpp"

namespace annulus {
namespace {

constexpr std::size_t most_bytes = std::size_t{1} << 30;

}  // namespace

std::string quoted(std::string_view text) {
  constexpr std::size_t most = 64;
  std::size_t end = std::min(text.size(), most);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0U) == 0x80U) --end;
  return sentence('"', text.substr(0, end), end < text.size() ? "...\"" : "\"");
}

Node Node::at(std::string_view key) const {
  static const nlohmann::json none;
  require(value_->is_object(), "must be an object");
  const auto found = value_->find(key);
  return {found == value_->end() ? none : *found, *file_, (place_.empty() ? "" : place_ + '.').append(key)};
}

std::size_t Node::entries() const {
  require(value_->is_array(), "must be a list");
  return value_->size();
}

Node Node::entry(std::size_t n) const {
  return {(*value_)[n], *file_, std::string(place_).append("[").append(std::to_string(n)).append("]")};
}

std::string Node::text() const {
  require(value_->is_string(), "must be a text");
  return value_->get_ref<const std::string&>();
}

bool Node::flag() const {
  require(value_->is_boolean(), "must be true or false");
  return value_->get<bool>();
}

std::uint32_t Node::id() const {
  const bool fits = value_->is_number_unsigned() && value_->get<std::uint64_t>() < ids_end;
  require(fits, "must be an id, a whole number from 0 to ", ids_end - 1);
  return value_->get<std::uint32_t>();
}

std::string Node::type() const { return at("type").text(); }

nlohmann::json read_json(const std::string& file) {
  TextFile stream(file);
  std::string text;
  for (std::string_view chunk = stream.next(); !chunk.empty(); chunk = stream.next()) {
    text += chunk;
    require<Failure::file>(text.size() <= most_bytes, file, ": is larger than 1 GiB");
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(Failure::file, sentence(file, ": is not JSON from byte ", error.byte, " on"));
  } catch (const nlohmann::json::exception&) {
    throw Error(Failure::file, sentence(file, ": is not JSON: it has a number that is out of range"));
  }
}

}  // namespace annulus

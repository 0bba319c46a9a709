#include "input/tokenizer/pre_tokenizer.hpp"

#include <array>
#include <optional>
#include <utility>

#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/splitters.hpp"

namespace annulus {
namespace {

// The words of GPT-2.
constexpr std::string_view usual_words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr int deepest = 16;

class Reader {
 public:
  explicit Reader(PreTokenizer& to) : to_(to) {}

  void read(const Node& node, int depth) {
    if (node.is_null()) return;
    const std::string type = node.type();
    if (type == "Sequence") return read_sequence(node, depth);
    close_byte_level();
    if (type == "ByteLevel") return read_byte_level(node);
    if (type == "Split") return read_split(node);
    if (type == "Metaspace") return read_metaspace(node);
    if (type == "Whitespace") return add<WordSplitter>();
    if (type == "WhitespaceSplit") return add<CharacterSplitter>(is_white_space, Delimiters::removed);
    if (type == "BertPreTokenizer") {
      add<CharacterSplitter>(is_white_space, Delimiters::removed);
      return add<CharacterSplitter>(is_punctuation, Delimiters::isolated);
    }
    if (type == "Punctuation") {
      const Node behavior = node.at("behavior");
      return add<CharacterSplitter>(is_punctuation,
                                    behavior.is_null() ? Delimiters::isolated : read_delimiters(behavior));
    }
    if (type == "Digits")
      return add<CharacterSplitter>(
          is_numeric, node.at("individual_digits").flag_or(false) ? Delimiters::isolated : Delimiters::contiguous);
    node.refuse("is of a type that is not supported: ", quoted(type));
  }

 private:
  template <class Step, class... Arguments>
  void add(Arguments&&... arguments) {
    to_.steps.push_back(std::make_unique<Step>(std::forward<Arguments>(arguments)...));
  }

  // What follows ByteLevel sees letters.
  void close_byte_level() {
    if (std::exchange(to_.bytes, false)) add<ByteLetters>();
  }

  void read_sequence(const Node& node, int depth) {
    node.require(depth < deepest, "is a sequence in more than ", deepest, " others");
    const Node parts = node.at("pretokenizers");
    for (std::size_t n = 0; n < parts.entries(); ++n) read(parts.entry(n), depth + 1);
  }

  void read_byte_level(const Node& node) {
    if (node.at("add_prefix_space").flag_or(true)) add<SpacePrefix>();
    if (node.at("use_regex").flag_or(true)) add<RegexSplitter>(Regex(usual_words, node), Delimiters::isolated, false);
    to_.bytes = true;
  }

  void read_split(const Node& node) {
    const Delimiters rule = read_delimiters(node.at("behavior"));
    const bool inverted = node.at("invert").flag_or(false);
    const Node pattern = node.at("pattern"), regex = pattern.at("Regex"), text = pattern.at("String");
    pattern.require(regex.is_null() != text.is_null(), "must be one Regex or one String");
    if (!regex.is_null()) return add<RegexSplitter>(Regex(regex.text(), regex), rule, inverted);
    text.require(!text.text().empty(), "must not be empty");
    add<TextSplitter>(text.text(), rule, inverted);
  }

  void read_metaspace(const Node& node) {
    const std::string mark = node.at("replacement").text();
    node.at("replacement").require(count_characters(mark) == 1, "must be one character, not ", quoted(mark));
    const Node scheme = node.at("prepend_scheme"), older = node.at("add_prefix_space");
    auto prefix = MarkSplitter::Prefix::always;
    if (!scheme.is_null()) {
      const std::string name = scheme.text();
      if (name == "first") prefix = MarkSplitter::Prefix::first;
      else if (name == "never") prefix = MarkSplitter::Prefix::never;
      else scheme.require(name == "always", "must be first, never or always, not ", quoted(name));
    }
    if (!older.flag_or(true)) {
      node.require(scheme.is_null() || prefix == MarkSplitter::Prefix::never,
                   "has a prepend_scheme, and add_prefix_space says otherwise");
      prefix = MarkSplitter::Prefix::never;
    }
    add<MarkSplitter>(mark, prefix, node.at("split").flag_or(true));
    to_.space = mark;
  }

  PreTokenizer& to_;
};

// Bytes that are printable Latin-1 characters are their own letters; the others follow from U+0100 on.
constexpr std::array<char32_t, 256> make_letters() {
  std::array<char32_t, 256> letters{};
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    letters[byte] = printable ? byte : next++;
  }
  return letters;
}
constexpr std::array<char32_t, 256> letters = make_letters();

constexpr std::array<std::int16_t, 512> make_bytes() {
  std::array<std::int16_t, 512> bytes{};
  for (std::int16_t& byte : bytes) byte = -1;
  for (std::size_t byte = 0; byte < 256; ++byte) bytes[letters[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}
constexpr std::array<std::int16_t, 512> bytes_of = make_bytes();

}  // namespace

PreTokenizer read_pre_tokenizer(const Node& node) {
  PreTokenizer result;
  Reader(result).read(node, 0);
  return result;
}

char32_t letter_of(unsigned char byte) { return letters[byte]; }

std::optional<std::string> bytes_of_letters(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const Character letter = character_at(text, at);
    if (letter.code >= bytes_of.size() || bytes_of[letter.code] < 0) return std::nullopt;
    bytes += static_cast<char>(bytes_of[letter.code]);
    at += letter.bytes;
  }
  return bytes;
}

}  // namespace annulus

#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "input/tokenizer/json.hpp"
#include "input/tokenizer/traced.hpp"

namespace annulus {

/// A part of a text, never empty where it is passed on.
struct Piece {
  const Traced* text;
  Bytes bytes;
  std::string_view view() const { return text->text().substr(bytes.begin, bytes.count()); }
};
using TakePiece = std::function<void(const Piece&)>;

/// Cuts pieces into smaller ones, in their order, maybe changing them.
class Splitter {
 public:
  virtual ~Splitter() = default;
  /// The pieces are valid until `take` returns; some may be empty.
  virtual void split(const Piece& piece, const TakePiece& take) const = 0;
};

/// What tokenizer.json's pre_tokenizer says.
struct PreTokenizer {
  std::vector<std::unique_ptr<Splitter>> steps;
  bool bytes = false;  ///< ByteLevel is the last of them: the model's vocabulary spells bytes as its letters
  std::string space;   ///< what Metaspace puts in the place of a space; empty where there is none
};

PreTokenizer read_pre_tokenizer(const Node& node);

/// The letter that stands for a byte in vocabularies of bytes, as in the published encoder of GPT-2.
char32_t letter_of(unsigned char byte);
/// The bytes that letters stand for; nothing where one of the characters is no such letter.
std::optional<std::string> bytes_of_letters(std::string_view letters);

}  // namespace annulus

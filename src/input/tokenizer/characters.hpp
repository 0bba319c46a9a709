#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace annulus {

/// One character of a text.
struct Character {
  char32_t code;
  std::size_t bytes;
};

/// The character that begins at a byte. Precondition: the text is UTF-8 and a character begins there.
inline Character character_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t n) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + n])); };
  const char32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xe0) return {((first & 0x1f) << 6) | (byte(1) & 0x3f), 2};
  if (first < 0xf0) return {((first & 0x0f) << 12) | ((byte(1) & 0x3f) << 6) | (byte(2) & 0x3f), 3};
  return {((first & 0x07) << 18) | ((byte(1) & 0x3f) << 12) | ((byte(2) & 0x3f) << 6) | (byte(3) & 0x3f), 4};
}

/// Where the last character before `end` begins; 0 < end.
inline std::size_t character_before(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0U) == 0x80U);
  return end;
}

/// How many characters a text has.
std::size_t count_characters(std::string_view text);

/// The UTF-8 of a code point.
std::string utf8(char32_t code);

bool is_utf8(std::string_view text);
/// What is not UTF-8 as \xNN, all else as it is.
std::string legible(std::string_view bytes);

// Of Unicode; categories as in UAX 44.
bool is_white_space(char32_t c);      ///< White_Space
bool is_punctuation(char32_t c);      ///< P*, and all of ASCII that is no letter, digit, control or space
bool is_numeric(char32_t c);          ///< Nd, Nl, No
bool is_word(char32_t c);             ///< Alphabetic, M*, Nd, Pc and Join_Control
bool is_other(char32_t c);            ///< Cc, Cf, Co, Cs: control, format, private use
bool is_mark(char32_t c);             ///< M*
bool is_nonspacing_mark(char32_t c);  ///< Mn
bool is_ideograph(char32_t c);        ///< Han, as BERT has it

/// Lower case of one character, which may be two.
std::u32string lower(char32_t c);

}  // namespace annulus

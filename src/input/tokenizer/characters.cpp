#include "input/tokenizer/characters.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>

#include "input/utf8.hpp"

namespace annulus {
namespace {

struct Block {
  char32_t first, last;
};

bool within(std::span<const Block> blocks, char32_t c) {
  return std::ranges::any_of(blocks, [c](Block block) { return block.first <= c && c <= block.last; });
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

template <class... Categories>
bool is_one_of(char32_t c, Categories... categories) {
  const utf8proc_category_t its = category(c);
  return ((its == categories) || ...);
}

// What a byte that is no part of a character becomes.
std::string hexadecimal(char byte) {
  constexpr std::string_view digits = "0123456789abcdef";
  const auto code = static_cast<unsigned char>(byte);
  return {'\\', 'x', digits[code >> 4U], digits[code & 0xfU]};
}

}  // namespace

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U; }));
}

std::string utf8(char32_t code) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes.data());
  return {bytes.begin(), bytes.begin() + count};
}

bool is_utf8(std::string_view text) {
  Utf8 utf8;
  for (const char byte : text)
    if (utf8.feed(static_cast<unsigned char>(byte)) == Utf8::Step::bad) return false;
  return utf8.between_characters();
}

std::string legible(std::string_view bytes) {
  std::string text;
  for (std::size_t at = 0; at < bytes.size();) {
    Utf8 utf8;
    std::size_t end = at;
    Utf8::Step step = Utf8::Step::more;
    while (step == Utf8::Step::more && end < bytes.size()) step = utf8.feed(static_cast<unsigned char>(bytes[end++]));
    if (step == Utf8::Step::whole) text += bytes.substr(at, end - at);
    else text += hexadecimal(bytes[at]), end = at + 1;
    at = end;
  }
  return text;
}

bool is_white_space(char32_t c) {
  static constexpr Block blocks[] = {{0x9, 0xd},       {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},
                                     {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
                                     {0x205f, 0x205f}, {0x3000, 0x3000}};
  return c < 0x85 ? c == ' ' || (c >= 0x9 && c <= 0xd) : within(blocks, c);
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z');
  return is_one_of(c, UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PD, UTF8PROC_CATEGORY_PS, UTF8PROC_CATEGORY_PE,
                   UTF8PROC_CATEGORY_PI, UTF8PROC_CATEGORY_PF, UTF8PROC_CATEGORY_PO);
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return is_one_of(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO);
}

bool is_word(char32_t c) {
  // Letters in circles and squares are symbols that are alphabetic; then the two joiners.
  static constexpr Block blocks[] = {
      {0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}, {0x200c, 0x200d}};
  return is_mark(c) ||
         is_one_of(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT, UTF8PROC_CATEGORY_LM,
                   UTF8PROC_CATEGORY_LO, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_PC) ||
         within(blocks, c);
}

bool is_other(char32_t c) {
  if (c < 0x80) return c < ' ' || c == 0x7f;
  return is_one_of(c, UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CF, UTF8PROC_CATEGORY_CO, UTF8PROC_CATEGORY_CS);
}

bool is_mark(char32_t c) { return is_one_of(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MC, UTF8PROC_CATEGORY_ME); }

bool is_nonspacing_mark(char32_t c) { return is_mark(c) && is_one_of(c, UTF8PROC_CATEGORY_MN); }

bool is_ideograph(char32_t c) {
  static constexpr Block blocks[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                                     {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
  return c >= 0x3400 && within(blocks, c);
}

std::u32string lower(char32_t c) {
  if (c < 0x80) return {c >= 'A' && c <= 'Z' ? c - U'A' + U'a' : c};
  if (c == 0x130) return U"i\u0307";
  return {static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)))};
}

}  // namespace annulus

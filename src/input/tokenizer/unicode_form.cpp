#include "input/tokenizer/unicode_form.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>

#include "input/tokenizer/characters.hpp"

namespace annulus {
namespace {

// A character of the new text, and how it came out of the old one: `change` is 0 where it takes the place of the next
// old character, -n where it takes the place of the next and n more, and 1 where it comes on top.
struct Changed {
  char32_t code;
  int change;
};

int combining_class(char32_t c) { return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class; }

void decompose(char32_t c, bool compatible, std::vector<Changed>& out) {
  std::array<utf8proc_int32_t, 32> parts{};  // 18 are the most in Unicode
  int last_boundary = 0;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                             static_cast<utf8proc_ssize_t>(parts.size()), options, &last_boundary);
  if (count <= 0 || static_cast<std::size_t>(count) > parts.size()) return out.push_back({c, 0});
  for (std::size_t n = 0; n < static_cast<std::size_t>(count); ++n)
    out.push_back({static_cast<char32_t>(parts[n]), n == 0 ? 0 : 1});
}

// Marks that follow a character, by their classes.
void order(std::span<Changed> text) {
  for (std::size_t begin = 0; begin < text.size();) {
    if (combining_class(text[begin].code) == 0) {
      ++begin;
      continue;
    }
    std::size_t end = begin;
    while (end < text.size() && combining_class(text[end].code) != 0) ++end;
    std::ranges::stable_sort(text.subspan(begin, end - begin), {}, [](Changed c) { return combining_class(c.code); });
    begin = end;
  }
}

// 0 where the two are no one character.
char32_t composed_of(char32_t first, char32_t second) {
  std::array<utf8proc_int32_t, 2> pair = {static_cast<utf8proc_int32_t>(first), static_cast<utf8proc_int32_t>(second)};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  return utf8proc_normalize_utf32(pair.data(), 2, options) == 1 ? static_cast<char32_t>(pair[0]) : 0;
}

void compose(std::vector<Changed>& text) {
  constexpr std::size_t none = ~std::size_t{0};
  std::size_t starter = none, count = 0;
  int last_class = -1;  // of what stands between the starter and here; -1: nothing does
  for (std::size_t n = 0; n < text.size(); ++n) {
    const Changed its = text[n];
    const int its_class = combining_class(its.code);
    if (starter != none && last_class < its_class) {
      if (const char32_t both = composed_of(text[starter].code, its.code)) {
        text[starter] = {both, text[starter].change + its.change - 1};
        continue;
      }
    }
    if (its_class == 0) starter = count, last_class = -1;
    else last_class = its_class;
    text[count++] = its;
  }
  text.resize(count);
}

}  // namespace

// Whether the character stays as it is when no mark follows, and is none.
bool UnicodeForm::is_settled(char32_t c) const {
  if (c < 0xa0) return true;
  if (c >= 0x3400 && c <= 0x9fff) return true;
  return composed_ && !compatible_ && c < 0x300;
}

std::optional<Traced> UnicodeForm::apply(const Traced& text, Bytes part) const {
  const std::string_view all = text.text().substr(0, part.end);
  const auto settled_at = [&](std::size_t at) { return is_settled(character_at(all, at).code); };
  std::size_t at = part.begin;
  std::optional<Rewriter> writer;
  std::vector<Changed> changed;
  std::size_t kept = part.begin;
  while (at < all.size()) {
    // From a settled character whose successor is none, up to the next settled one.
    while (at < all.size() && settled_at(at)) at += character_at(all, at).bytes;
    if (at == all.size()) break;
    std::size_t begin = at > part.begin ? character_before(all, at) : at;
    begin = std::max(begin, part.begin);
    while (at < all.size() && !settled_at(at)) at += character_at(all, at).bytes;

    changed.clear();
    for (std::size_t n = begin; n < at; n += character_at(all, n).bytes)
      decompose(character_at(all, n).code, compatible_, changed);
    order(changed);
    if (composed_) compose(changed);

    if (!writer) writer.emplace(text);
    writer->keep({kept, begin});
    kept = at;
    std::size_t from = begin;  // the next old character
    for (const Changed its : changed) {
      if (its.change > 0) {
        if (from > 0) writer->put(utf8(its.code), from - 1);
        else writer->put_nowhere(utf8(its.code), 0);
        continue;
      }
      writer->put(utf8(its.code), std::min(from, at - 1));
      for (int n = its.change; n <= 0 && from < at; ++n) from += character_at(all, from).bytes;
    }
  }
  if (!writer) return std::nullopt;
  writer->keep({kept, part.end});
  return std::move(*writer).finish();
}

}  // namespace annulus

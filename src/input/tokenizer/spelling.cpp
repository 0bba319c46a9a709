#include "input/tokenizer/spelling.hpp"

#include <algorithm>
#include <optional>

#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/splitters.hpp"

namespace annulus {
namespace {

int digit_of(char letter) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  return letter >= 'A' && letter <= 'F' ? letter - 'A' + 10 : -1;
}

}  // namespace

std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = digit_of(token[3]), low = digit_of(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(16 * high + low);
}

Speller::Speller(const Node& document, const PreTokenizer& pre_tokenizer, const Normalizer& normalizer)
    : letters_(pre_tokenizer.bytes),
      falls_back_(document.at("model").at("byte_fallback").flag_or(false)),
      space_(pre_tokenizer.space.empty() ? normalizer.space : pre_tokenizer.space),
      continued_(document.at("model").at("continuing_subword_prefix").text_or("")) {
  for (const auto& step : pre_tokenizer.steps)
    if (dynamic_cast<const ByteLetters*>(step.get()) != nullptr) letters_ = true;
}

std::string Speller::spell(std::string_view token) const {
  if (letters_) {
    const std::optional<std::string> bytes = bytes_of_letters(token);
    return legible(bytes ? *bytes : token);
  }
  if (falls_back_)
    if (const std::optional<char> byte = byte_of(token)) return legible({&*byte, 1});
  if (!continued_.empty() && token.starts_with(continued_)) token.remove_prefix(continued_.size());
  if (space_.empty()) return std::string(token);
  std::string text;
  for (std::size_t at = token.find(space_); at != std::string_view::npos; at = token.find(space_)) {
    text.append(token.substr(0, at)).append(" ");
    token.remove_prefix(at + space_.size());
  }
  return text.append(token);
}

}  // namespace annulus

#include "app/report/words.hpp"

#include <algorithm>

namespace annulus::app {

std::optional<Words> Words::of(const InputFile& file) {
  constexpr Index most = Index{1} << 24;
  if (!file.has("tokens/ids") || !file.has("tokens/vocabulary") || file.shape("tokens/ids").elements() > most)
    return std::nullopt;
  Words words;
  words.ids_ = file.read_integers("tokens/ids", most);
  words.vocabulary_ = file.read_texts("tokens/vocabulary", most);
  const auto kind = file.attribute("/", "token_kind");
  const bool close = kind == Value("bytes") || kind == Value("bases") || kind == Value("model");
  words.gap_.assign(close ? 0 : 1, ' ');
  return words;
}

std::string Words::at(Index token) const {
  return token >= 0 && token < count() ? word(ids_[static_cast<std::size_t>(token)]) : "?";
}

std::string Words::word(Index id) const {
  return id >= 0 && id < static_cast<Index>(vocabulary_.size()) ? vocabulary_[static_cast<std::size_t>(id)] : "?";
}

std::string Words::text(Range tokens) const {
  std::string text;
  for (Index token = std::max<Index>(0, tokens.begin); token < std::min(tokens.end, count()); ++token)
    text += (text.empty() ? "" : gap_) + at(token);
  return text;
}

std::string visible(const std::string& word) {
  std::string text;
  for (const char c : word)
    if (c == '\n') text += "\u21b5";
    else if (static_cast<unsigned char>(c) < ' ') (text += "\xe2\x90") += static_cast<char>(0x80 + c);  // U+2400 ...
    else text += c;
  return text;
}

}  // namespace annulus::app

#include "annulus/input/encoded.hpp"

#include <algorithm>

#include "annulus/base/error.hpp"
#include "annulus/input/tokenizer.hpp"
#include "input/distinct_files.hpp"
#include "input/text_file.hpp"
#include "input/words.hpp"

namespace annulus {
namespace {

std::string read_whole(const std::string& path) {
  TextFile file(path);
  std::string text;
  read_text(file, TokenKind::bytes, [&](std::string_view byte, Index, Index) { text += byte; });
  return text;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool separates(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || c == ','; }

}  // namespace

EncodedTexts::EncodedTexts(std::span<const std::string> files, const Tokenizer& tokenizer)
    : files_(distinct_files(files)) {
  for (const std::string& path : files_) {
    const std::string text = read_whole(path);
    const auto end = static_cast<Index>(text.size());
    for (const std::uint32_t id : tokenizer.before()) append(id, 0, 0);
    for (const TextToken& token : tokenizer.encode(text)) append(token.id, token.begin, token.end);
    for (const std::uint32_t id : tokenizer.after()) append(id, end, end);
    offsets_.push_back(tokens());
  }
}

EncodedTexts::EncodedTexts(std::span<const std::string> files) : files_(distinct_files(files)) {
  for (const std::string& path : files_) {
    read_numbers(path);
    offsets_.push_back(tokens());
  }
}

void EncodedTexts::append(std::uint32_t id, Index begin, Index end) {
  ids_.push_back(id);
  begins_.push_back(begin);
  ends_.push_back(end);
}

void EncodedTexts::read_numbers(const std::string& path) {
  constexpr std::uint64_t most = ~std::uint32_t{0};
  TextFile file(path);
  std::uint64_t id = 0;
  Index at = 0, begin = -1;  // begin: of the number that is being read, else -1
  const auto finish = [&] {
    if (begin >= 0) append(static_cast<std::uint32_t>(id), begin, at);
    id = 0, begin = -1;
  };
  for (std::string_view chunk = file.next(); !chunk.empty(); chunk = file.next())
    for (const char c : chunk) {
      if (is_digit(c)) {
        if (begin < 0) begin = at;
        id = 10 * id + static_cast<std::uint64_t>(c - '0');
        require<Failure::file>(id <= most, "ids of tokens are at most ", most, ", but ", file.contents(),
                               " has a larger one at byte ", begin);
      } else {
        require<Failure::file>(separates(c), "ids of tokens are numbers with white space or commas between them, but ",
                               file.contents(), " has something else at byte ", at);
        finish();
      }
      ++at;
    }
  finish();
}

Index EncodedTexts::document(Index token) const {
  return std::ranges::upper_bound(offsets_, token) - offsets_.begin() - 1;
}

Range EncodedTexts::document_of(Index token) const {
  const auto d = static_cast<std::size_t>(document(token));
  return {offsets_[d], offsets_[d + 1]};
}

}  // namespace annulus

#include "input/words.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "annulus/base/error.hpp"
#include "input/utf8.hpp"

namespace annulus {
namespace {

constexpr std::size_t longest_word_bytes = 1024;

enum class Letter : std::uint8_t { word, alone, apostrophe, separator };

struct Block {
  char32_t first, last;
};

// White space and punctuation beyond ASCII: C1 controls and Latin-1 signs, general and supplemental punctuation, arrows
// and technical signs, boxes and dingbats, CJK and full-width signs, the byte order mark. All else is a letter.
constexpr Block separators[] = {
    {0x80, 0xa9},     {0xab, 0xb4},     {0xb6, 0xb9},     {0xbb, 0xbf},     {0xd7, 0xd7},     {0xf7, 0xf7},
    {0x2000, 0x206f}, {0x2190, 0x23ff}, {0x2500, 0x27bf}, {0x2e00, 0x2e7f}, {0x3000, 0x3004}, {0x3008, 0x3020},
    {0xfe10, 0xfe6f}, {0xfeff, 0xfeff}, {0xff01, 0xff0f}, {0xff1a, 0xff20}, {0xff3b, 0xff40}, {0xff5b, 0xff65}};
// Scripts written without spaces, where a character is the best word there is.
constexpr Block ideographs[] = {
    {0x3005, 0x3007}, {0x3040, 0x30ff}, {0x3400, 0x9fff}, {0xf900, 0xfaff}, {0x20000, 0x3ffff}};

bool within(std::span<const Block> blocks, char32_t c) {
  return std::ranges::any_of(blocks, [c](Block block) { return block.first <= c && c <= block.last; });
}

Letter letter(char32_t c) {
  if (c < 0x80) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Letter::word;
    return c == '\'' ? Letter::apostrophe : Letter::separator;
  }
  if (c == 0x2019) return Letter::apostrophe;
  if (within(separators, c)) return Letter::separator;
  return within(ideographs, c) ? Letter::alone : Letter::word;
}

// Turns characters of one file into words.
class WordSplitter {
 public:
  explicit WordSplitter(const FoundToken& found) : found_(found) {}

  // The character c occupies bytes [begin, end); text is its UTF-8.
  void feed(char32_t c, std::string_view text, Index begin, Index end) {
    const Letter kind = letter(c);
    if (kind == Letter::apostrophe && !word_.empty() && !apostrophe_) {
      apostrophe_ = true;  // it counts only when a letter follows
      return;
    }
    if (kind != Letter::word) flush();
    if (kind == Letter::alone) found_(text, begin, end);
    if (kind != Letter::word) return;
    if (word_.size() >= longest_word_bytes) flush();
    if (word_.empty()) begin_ = begin;
    if (std::exchange(apostrophe_, false)) word_ += '\'';
    if (c >= 'A' && c <= 'Z') word_ += static_cast<char>(c - 'A' + 'a');
    else word_ += text;
    end_ = end;
  }
  void flush() {
    if (!word_.empty()) found_(word_, begin_, end_);
    word_.clear();
    apostrophe_ = false;
  }

 private:
  const FoundToken& found_;
  std::string word_;
  Index begin_ = 0, end_ = 0;
  bool apostrophe_ = false;
};

}  // namespace

void read_text(TextFile& file, TokenKind kind, const FoundToken& found) {
  WordSplitter words(found);
  Utf8 utf8;
  std::string character;
  Index at = 0;
  for (std::string_view chunk = file.next(); !chunk.empty(); chunk = file.next())
    for (const char byte : chunk) {
      character += byte;
      const Utf8::Step step = utf8.feed(static_cast<unsigned char>(byte));
      require<Failure::file>(step != Utf8::Step::bad, "text must be UTF-8, but ", file.contents(), " is not at byte ",
                             at);
      ++at;
      if (kind == TokenKind::bytes) found({&byte, 1}, at - 1, at);
      if (step != Utf8::Step::whole) continue;
      if (kind == TokenKind::words) words.feed(utf8.point(), character, at - static_cast<Index>(character.size()), at);
      character.clear();
    }
  require<Failure::file>(utf8.between_characters(), "text must be UTF-8, but ", file.contents(),
                         " ends inside a character at byte ", at);
  words.flush();
}

}  // namespace annulus

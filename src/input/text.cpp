#include "annulus/input/text.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{1} << 20;
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

// Bytes in, code points out; nullopt in the middle of a character. Rejects what RFC 3629 rejects: stray and missing
// continuation bytes, overlong forms, surrogates and values beyond U+10FFFF.
class Utf8 {
 public:
  enum class Step : std::uint8_t { more, whole, bad };
  Step feed(unsigned char byte) {
    if (left_ == 0) {
      if (byte < 0x80) return point_ = byte, Step::whole;
      if (byte >= 0xc2 && byte <= 0xdf) return start(byte & 0x1fU, 1, 0x80, 0xbf);
      if (byte >= 0xe0 && byte <= 0xef)
        return start(byte & 0x0fU, 2, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf);
      if (byte >= 0xf0 && byte <= 0xf4)
        return start(byte & 0x07U, 3, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf);
      return Step::bad;
    }
    if (byte < least_ || byte > most_) return Step::bad;
    least_ = 0x80, most_ = 0xbf;
    point_ = (point_ << 6) | (byte & 0x3fU);
    return --left_ == 0 ? Step::whole : Step::more;
  }
  char32_t point() const { return point_; }
  bool between_characters() const { return left_ == 0; }

 private:
  Step start(unsigned bits, int left, unsigned char least, unsigned char most) {
    point_ = bits, left_ = left, least_ = least, most_ = most;
    return Step::more;
  }
  char32_t point_ = 0;
  int left_ = 0;
  unsigned char least_ = 0x80, most_ = 0xbf;
};

using FileIdentity = std::pair<dev_t, ino_t>;

FileIdentity identify(const std::string& path) {
  struct stat status = {};
  require<Failure::file>(::stat(path.c_str(), &status) == 0, "cannot read ", path, ": ", std::strerror(errno));
  require<Failure::file>(!S_ISDIR(status.st_mode), "a text file is needed, but this is a directory: ", path);
  require<Failure::file>(S_ISREG(status.st_mode), "a text file is needed, but this is not a regular file: ", path);
  return {status.st_dev, status.st_ino};
}

}  // namespace

// Turns characters of one file into the words of a corpus.
class WordSplitter {
 public:
  explicit WordSplitter(Corpus& corpus) : corpus_(corpus) {}

  // The character c occupies bytes [begin, end); text is its UTF-8.
  void feed(char32_t c, std::string_view text, Index begin, Index end) {
    const Letter kind = letter(c);
    if (kind == Letter::apostrophe && !word_.empty() && !apostrophe_) {
      apostrophe_ = true;  // it counts only when a letter follows
      return;
    }
    if (kind != Letter::word) flush();
    if (kind == Letter::alone) corpus_.append(text, begin, end);
    if (kind != Letter::word) return;
    if (word_.size() >= longest_word_bytes) flush();
    if (word_.empty()) begin_ = begin;
    if (std::exchange(apostrophe_, false)) word_ += '\'';
    if (c >= 'A' && c <= 'Z') word_ += static_cast<char>(c - 'A' + 'a');
    else word_ += text;
    end_ = end;
  }
  void flush() {
    if (!word_.empty()) corpus_.append(word_, begin_, end_);
    word_.clear();
    apostrophe_ = false;
  }

 private:
  Corpus& corpus_;
  std::string word_;
  Index begin_ = 0, end_ = 0;
  bool apostrophe_ = false;
};

std::string_view name_of(TokenKind kind) { return kind == TokenKind::words ? "words" : "bytes"; }

TokenKind parse_token_kind(std::string_view name) {
  require(name == "words" || name == "bytes", "tokens are words or bytes, not ", name);
  return name == "words" ? TokenKind::words : TokenKind::bytes;
}

Corpus::Corpus(std::span<const std::string> files, TokenKind kind) : kind_(kind) {
  require(!files.empty(), "at least one text file is needed");
  std::set<FileIdentity> seen;
  for (const std::string& file : files) {
    if (!seen.insert(identify(file)).second) continue;
    std::error_code failure;
    const std::string path = std::filesystem::canonical(file, failure).string();
    require<Failure::file>(!failure, "cannot read ", file, ": ", failure.message());
    read(path);
    paths_.push_back(path);
    offsets_.push_back(tokens());
  }
  const auto most = std::ranges::max_element(counts_);
  most_frequent_ = static_cast<std::uint32_t>(most - counts_.begin());
}

void Corpus::read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  require<Failure::file>(stream.is_open(), "cannot read ", path, ": ", std::strerror(errno));
  std::vector<char> chunk(chunk_bytes);
  WordSplitter words(*this);
  Utf8 utf8;
  std::string character;
  Index at = 0;
  while (stream) {
    stream.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    require<Failure::file>(!stream.bad(), "cannot read ", path, " beyond byte ", at, ": ", std::strerror(errno));
    for (const char byte : std::string_view(chunk.data(), static_cast<std::size_t>(stream.gcount()))) {
      character += byte;
      const Utf8::Step step = utf8.feed(static_cast<unsigned char>(byte));
      require<Failure::file>(step != Utf8::Step::bad, "text must be UTF-8, but ", path, " is not at byte ", at);
      ++at;
      if (kind_ == TokenKind::bytes) append({&byte, 1}, at - 1, at);
      if (step != Utf8::Step::whole) continue;
      if (kind_ == TokenKind::words) words.feed(utf8.point(), character, at - static_cast<Index>(character.size()), at);
      character.clear();
    }
  }
  require<Failure::file>(utf8.between_characters(), "text must be UTF-8, but ", path,
                         " ends inside a character at byte ", at);
  words.flush();
}

void Corpus::append(std::string_view word, Index begin, Index end) {
  const auto [place, is_new] = known_.try_emplace(std::string(word), static_cast<std::uint32_t>(spelling_.size()));
  if (is_new) {
    spelling_.emplace_back(word);
    counts_.push_back(0);
  }
  ++counts_[place->second];
  ids_.push_back(place->second);
  if (kind_ == TokenKind::bytes) return;  // a byte's place follows from its token's
  begins_.push_back(begin);
  ends_.push_back(end);
}

Index Corpus::document(Index token) const { return std::ranges::upper_bound(offsets_, token) - offsets_.begin() - 1; }

Range Corpus::document_of(Index token) const {
  const auto d = static_cast<std::size_t>(document(token));
  return {offsets_[d], offsets_[d + 1]};
}

Index Corpus::byte_begin(Index token) const {
  if (kind_ == TokenKind::bytes) return token - document_of(token).begin;
  return begins_[static_cast<std::size_t>(token)];
}

Index Corpus::byte_end(Index token) const {
  if (kind_ == TokenKind::bytes) return token - document_of(token).begin + 1;
  return ends_[static_cast<std::size_t>(token)];
}

ByteRange Corpus::bytes(Range tokens) const {
  require(0 <= tokens.begin && tokens.begin < tokens.end && tokens.end <= document_of(tokens.begin).end,
          "a range of bytes needs tokens of one document, not ", tokens.begin, " to ", tokens.end);
  return {document(tokens.begin), byte_begin(tokens.begin), byte_end(tokens.end - 1)};
}

}  // namespace annulus

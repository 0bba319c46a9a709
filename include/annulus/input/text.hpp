#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "annulus/base/types.hpp"
#include "annulus/geometry/range.hpp"

namespace annulus {

/// What a token of a text is.
///   words  Maximal runs of letters and digits: ASCII letters and digits and every other Unicode character that is
///   neither
///          white space nor punctuation (see text.cpp). An apostrophe (' or U+2019, one identity) belongs to the word
///          it stands inside. Ideographs and kana, which are written without spaces, are words of one character. ASCII
///          letters are lower-cased. White space and punctuation separate words and are no tokens, so that a quotation
///          is found across line wraps, in whatever quotation marks, and behind comment marks such as "> ", "# " or " *
///          ". A run is cut after 1,024 bytes.
///   bytes  Every byte, white space included.
enum class TokenKind : std::uint8_t { words, bytes };

std::string_view name_of(TokenKind kind);
/// Throws Error (usage) for anything but words and bytes.
TokenKind parse_token_kind(std::string_view name);

/// Half-open bytes of one document's file.
struct ByteRange {
  Index document = 0, begin = 0, end = 0;
  bool operator==(const ByteRange&) const = default;
};

/// UTF-8 text files as documents of one long sequence of tokens; the text itself is not kept. Memory: 20 bytes per word
/// (4 per byte token) and the vocabulary. Every rank holds the whole table, which is small beside the activations of
/// its own rows.
class Corpus {
 public:
  /// Reads the files in the order given, in chunks of 1 MiB. Symbolic links are resolved, and a file that is given
  /// twice, under whatever names, is read once. Empty files are documents without tokens. Throws Error (file) that
  /// names the file: missing, unreadable, not a regular file, or not UTF-8 (with the byte offset); Error (usage) when
  /// no file is given.
  Corpus(std::span<const std::string> files, TokenKind kind);

  TokenKind kind() const { return kind_; }
  Index tokens() const { return static_cast<Index>(ids_.size()); }
  /// One id per token: dense, numbered by first appearance.
  std::span<const std::uint32_t> ids() const { return ids_; }
  std::uint32_t id(Index token) const { return ids_[static_cast<std::size_t>(token)]; }

  Index documents() const { return static_cast<Index>(paths_.size()); }
  /// Where documents begin, as token positions: first 0, last tokens(), documents() + 1 numbers.
  std::span<const Index> offsets() const { return offsets_; }
  /// Absolute paths without symbolic links, one per document.
  const std::vector<std::string>& paths() const { return paths_; }
  /// The document a token belongs to. 0 <= token < tokens().
  Index document(Index token) const;
  /// The tokens of the document a token belongs to.
  Range document_of(Index token) const;

  /// Half-open bytes of a token in its document's file.
  Index byte_begin(Index token) const;
  Index byte_end(Index token) const;
  /// From the first byte of the first token to the last byte of the last.
  /// Throws Error (usage) unless the range is not empty and lies in one document.
  ByteRange bytes(Range tokens) const;

  Index vocabulary() const { return static_cast<Index>(spelling_.size()); }
  /// What tokens with this id have in common; one raw byte in a corpus of bytes, which need not be UTF-8 by itself.
  const std::string& spelling(std::uint32_t id) const { return spelling_[id]; }
  /// How often the id occurs in the whole corpus.
  Index count(std::uint32_t id) const { return counts_[id]; }
  /// count / tokens: the unigram baseline.
  double frequency(std::uint32_t id) const { return static_cast<double>(count(id)) / static_cast<double>(tokens()); }
  /// The id that occurs most often; ties by smaller id. Precondition: tokens() > 0.
  std::uint32_t most_frequent() const { return most_frequent_; }

 private:
  friend class WordSplitter;
  void read(const std::string& path);
  void append(std::string_view word, Index begin, Index end);

  TokenKind kind_;
  std::vector<std::string> paths_;
  std::vector<Index> offsets_ = {0};
  std::vector<std::uint32_t> ids_;
  std::vector<Index> begins_, ends_;  // words only
  std::vector<std::string> spelling_;
  std::vector<Index> counts_;
  std::unordered_map<std::string, std::uint32_t> known_;
  std::uint32_t most_frequent_ = 0;
};

}  // namespace annulus

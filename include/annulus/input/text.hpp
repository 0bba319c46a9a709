#pragma once
#include <array>
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
///   bases  Every residue of the sequences of a FASTA file, nucleotides or amino acids: letters, upper-cased, and * and
///          -. Each record is a document.
enum class TokenKind : std::uint8_t { words, bytes, bases };

std::string_view name_of(TokenKind kind);
/// Throws Error (usage) for anything but words, bytes and bases.
TokenKind parse_token_kind(std::string_view name);
/// What the names of the files say: bases of .fa, .fasta, .fna, .ffn, .frn and .faa (with .gz or .bgz behind them, too),
/// else words. Throws Error (usage) that names two files when they say different things.
TokenKind usual_token_kind(std::span<const std::string> files);

/// Half-open bytes of one document's file, unpacked.
struct ByteRange {
  Index document = 0, begin = 0, end = 0;
  bool operator==(const ByteRange&) const = default;
};

/// Text files as documents of one long sequence of tokens; the text itself is not kept. Memory: 20 bytes per word, 1 per
/// byte token, 1 per base and 16 per line of bases, and the vocabulary (vectors that grow take up to twice that). Every
/// rank holds the whole table, which is small beside the activations of its own rows.
class Corpus {
 public:
  /// Reads the files in the order given, in chunks of 1 MiB, unpacking those that gzip or bgzip has packed.
  /// Symbolic links are resolved, and a file that is given twice, under whatever names, is read once. A file is one
  /// document; of bases, each of its records is. Empty ones are documents without tokens. Throws Error (file) that names
  /// the file: missing, unreadable, not a regular file, damaged or cut short where it is packed, or, with the byte, not
  /// UTF-8 or not FASTA; Error (usage) when no file is given.
  Corpus(std::span<const std::string> files, TokenKind kind);

  TokenKind kind() const { return kind_; }
  Index tokens() const { return offsets_.back(); }
  /// One id per token: dense, numbered by first appearance.
  std::vector<std::uint32_t> ids() const;
  std::uint32_t id(Index token) const {
    const auto n = static_cast<std::size_t>(token);
    return kind_ == TokenKind::words ? word_ids_[n] : letter_ids_[n];
  }

  /// Absolute paths without symbolic links.
  const std::vector<std::string>& files() const { return files_; }
  Index documents() const { return static_cast<Index>(offsets_.size()) - 1; }
  /// Where documents begin, as token positions: first 0, last tokens(), documents() + 1 numbers.
  std::span<const Index> offsets() const { return offsets_; }
  /// The file a document is, or is in.
  const std::string& path(Index document) const { return files_[file_of(document)]; }
  /// Of a record of bases the first word of its header, which may be empty and need not be the only one of its name.
  const std::string& name(Index document) const { return names_[static_cast<std::size_t>(document)]; }
  /// What a person calls a document, unlike any other's: its file; of bases "chr1", with the file before it where there are
  /// several, and "record 3" behind it or in its place (the third of its file) where the name does not say which.
  std::string title(Index document) const;
  /// The document a token belongs to. 0 <= token < tokens().
  Index document(Index token) const;
  /// The tokens of the document a token belongs to.
  Range document_of(Index token) const;

  /// Half-open bytes of a token in its document's file, unpacked.
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
  // Bases that stand side by side in a file: those from `token` on, up to the next stretch or the end of the document.
  struct Stretch {
    Index token, byte;
  };
  void read(const std::string& path);
  void append(std::string_view word, Index begin, Index end);
  void append_letter(char letter);
  void append_residues(std::string_view residues, Index at);
  void begin_document();
  void find_shared_names();
  std::size_t file_of(Index document) const;

  TokenKind kind_;
  std::vector<std::string> files_;
  std::vector<Index> first_document_;  // of each file
  std::vector<Index> offsets_ = {0};
  std::vector<std::string> names_;  // bases only
  std::vector<bool> shares_name_;   // with another record of the same file
  std::vector<std::uint32_t> word_ids_;
  std::vector<std::uint8_t> letter_ids_;  // bytes and bases
  std::vector<Index> begins_, ends_;      // words
  std::vector<Stretch> stretches_;        // bases
  std::vector<std::string> spelling_;
  std::vector<Index> counts_;
  std::unordered_map<std::string, std::uint32_t> known_words_;
  std::array<std::int16_t, 256> known_letters_;  // -1: not met yet
  std::uint32_t most_frequent_ = 0;
};

}  // namespace annulus

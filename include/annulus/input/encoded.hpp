#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "annulus/base/types.hpp"
#include "annulus/geometry/range.hpp"

namespace annulus {

class Tokenizer;

/// Text files as documents of one long sequence of ids: a tokenizer's, or given as numbers. The text is not kept.
/// Memory: 20 bytes per token (vectors that grow take up to twice that); while a file is read, the file and what
/// Tokenizer::encode takes, too.
class EncodedTexts {
 public:
  /// Each file is a document, read as Corpus reads files, with the ids of before() and after() around its tokens; those
  /// have no bytes: empty ranges at its ends. Throws Error (file) that names the file: missing, unreadable, not a
  /// regular file, damaged or cut short where it is packed, or, with the byte, not UTF-8; Error (usage) when no file is
  /// given.
  EncodedTexts(std::span<const std::string> files, const Tokenizer& tokenizer);
  /// Files of ids, each a document: decimal numbers below 2^32 with white space or commas between them. The bytes of a
  /// token are those of its digits. Throws Error as above; with the byte where there is something else.
  explicit EncodedTexts(std::span<const std::string> files);

  Index tokens() const { return static_cast<Index>(ids_.size()); }
  std::span<const std::uint32_t> ids() const { return ids_; }
  /// Half-open bytes of a token in its document, unpacked. Those of neighbours may overlap: see TextToken.
  Index byte_begin(Index token) const { return begins_[static_cast<std::size_t>(token)]; }
  Index byte_end(Index token) const { return ends_[static_cast<std::size_t>(token)]; }

  Index documents() const { return static_cast<Index>(offsets_.size()) - 1; }
  /// Where documents begin, as token positions: first 0, last tokens(), documents() + 1 numbers.
  std::span<const Index> offsets() const { return offsets_; }
  /// The document a token belongs to. 0 <= token < tokens().
  Index document(Index token) const;
  /// The tokens of the document a token belongs to.
  Range document_of(Index token) const;
  /// Absolute paths without symbolic links, one for each document.
  const std::vector<std::string>& files() const { return files_; }
  const std::string& path(Index document) const { return files_[static_cast<std::size_t>(document)]; }

 private:
  void append(std::uint32_t id, Index begin, Index end);
  void read_numbers(const std::string& path);

  std::vector<std::string> files_;
  std::vector<Index> offsets_ = {0};
  std::vector<std::uint32_t> ids_;
  std::vector<Index> begins_, ends_;
};

}  // namespace annulus

#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// A token of a text: its id, and half-open bytes of the text. The bytes are whole characters: tokens that are parts of
/// one character all have its bytes, and a token that stands for nothing in the text has none.
struct TextToken {
  std::uint32_t id = 0;
  Index begin = 0, end = 0;
  bool operator==(const TextToken&) const = default;
};

/// The tokenizer of a trained model: what FOLDER/tokenizer.json says, the file of Hugging Face's `tokenizers`.
///   model           BPE (of bytes, of characters, with byte_fallback), WordPiece, Unigram
///   normalizer      NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, BertNormalizer, Prepend, Replace, Strip
///   pre_tokenizer   ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, BertPreTokenizer
///   post_processor  ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing
/// and Sequences of those; the decoder, truncation and padding are not looked at. All else is refused: a wrong token is
/// worse than none. Ids are those of `tokenizers` 0.23, but for characters that Unicode has got so lately that the
/// libraries disagree about them. So are bytes, but that no spaces are trimmed from them (trim_offsets), and that text
/// without a token moves none of those behind it. Added tokens have the ids that the file gives them.
/// Memory: about 25 times the file while it is read. Several threads may use one.
class Tokenizer {
 public:
  /// Throws Error (file) that names the file, the key and the rule: missing, not JSON, not supported, ids from 2^24 on.
  explicit Tokenizer(const std::string& folder);
  ~Tokenizer();
  Tokenizer(Tokenizer&& other) noexcept;
  Tokenizer& operator=(Tokenizer&& other) noexcept;

  /// The tokens of a text, in its order. Special tokens that are written in the text are found; none are added.
  /// O(n log n) time, mostly O(n); memory: 24 bytes per token, the text once more where it is normalized or marked,
  /// with 24 bytes per stretch that changes, and 45 bytes per byte of a stretch that nothing splits.
  /// Throws Error (usage) where the text is not UTF-8, and Error (file) where a regular expression of the file takes
  /// too many steps or 4 GiB of the text are nowhere split.
  std::vector<TextToken> encode(std::string_view text) const;

  /// Largest id + 1.
  Index vocabulary() const;
  /// The text that an id stands for (" the"), legible: bytes that are not UTF-8 as \xNN. Special tokens as they are
  /// written; empty for ids without a token.
  std::string spelling(std::uint32_t id) const;

  /// The ids that its post-processor puts before and behind a single text.
  std::span<const std::uint32_t> before() const;
  std::span<const std::uint32_t> after() const;

 private:
  struct Parts;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace annulus

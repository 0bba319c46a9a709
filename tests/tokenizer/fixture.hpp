#pragma once
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/input/tokenizer.hpp"
#include "input/temporary.hpp"

namespace annulus {

/// What gtest shows of a token.
inline void PrintTo(const TextToken& token, std::ostream* out) {
  *out << token.id << " [" << token.begin << ", " << token.end << ")";
}

/// A folder with a tokenizer.json.
class TokenizerFolder {
 public:
  explicit TokenizerFolder(std::string_view document) { folder_.write("tokenizer.json", document); }
  std::string path() const { return folder_.at(""); }
  Tokenizer open() const { return Tokenizer(path()); }

 private:
  TemporaryFolder folder_;
};

/// What the error about a tokenizer.json says; "no error" where there is none.
inline std::string complaint_about(std::string_view document) {
  try {
    TokenizerFolder(document).open();
  } catch (const Error& error) {
    return error.failure() == Failure::file ? error.what() : "another failure";
  }
  return "no error";
}

/// The document with the first occurrence of `old` replaced; it must be there.
inline std::string with(std::string_view document, std::string_view old, std::string_view better) {
  std::string text(document);
  const std::size_t at = text.find(old);
  EXPECT_NE(at, std::string::npos) << old;
  return at == std::string::npos ? text : text.replace(at, old.size(), better);
}

inline std::vector<std::uint32_t> ids_of(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::uint32_t> ids;
  for (const TextToken& token : tokenizer.encode(text)) ids.push_back(token.id);
  return ids;
}

/// Bytes as GPT-2 does it: " the" and "th" are merged, besides the letters of " aehst", of U+00E9 and a line's end.
inline constexpr std::string_view small_gpt2 = R"({
  "added_tokens": [{"id": 17, "content": "<|end|>", "special": true, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": {"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [17], "tokens": ["<|end|>"]}}},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
    "vocab": {"a": 0, "e": 1, "h": 2, "s": 3, "t": 4, "Ġ": 5, "Ã": 6, "©": 7, "Ċ": 8, "th": 9, "the": 10, "Ġthe": 11,
              "at": 12, "Ġa": 13},
    "merges": ["t h", "th e", "Ġ the", "a t", "Ġ a"]}
})";

/// Characters as Llama 2 does it: a mark for spaces and before the text, bytes for the letters a vocabulary lacks; of
/// those it has only the three of U+2603.
inline constexpr std::string_view small_llama = R"({
  "added_tokens": [{"id": 1, "content": "<s>", "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": null,
  "post_processor": {"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
  "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
    "vocab": {"<unk>": 0, "<s>": 1, "<0x83>": 2, "<0x98>": 3, "<0xE2>": 4, "▁": 5, "a": 6, "b": 7, "ä": 8,
              "▁a": 9, "ab": 10, "▁ab": 11, "▁▁": 12},
    "merges": [["▁", "a"], ["a", "b"], ["▁", "ab"], ["▁", "▁"], ["▁a", "b"]]}
})";

/// Words as BERT does it, without capitals and accents.
inline constexpr std::string_view small_bert = R"({
  "added_tokens": [{"id": 2, "content": "[MASK]", "special": true, "lstrip": true}],
  "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                 "lowercase": true},
  "pre_tokenizer": {"type": "BertPreTokenizer"},
  "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]},
  "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 8,
    "vocab": {"[CLS]": 0, "[SEP]": 1, "[MASK]": 2, "[UNK]": 3, "un": 4, "##aff": 5, "##able": 6, "漢": 7, "!": 8,
              "a": 9, "##a": 10, "una": 11}}
})";

/// Log probabilities, and a mark before words.
inline constexpr std::string_view small_unigram = R"({
  "added_tokens": [],
  "normalizer": {"type": "NFKC"},
  "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
  "post_processor": null,
  "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
    "vocab": [["<unk>", 0.0], ["▁", -2.0], ["a", -3.0], ["b", -3.0], ["ab", -5.0], ["▁ab", -6.5], ["▁a", -4.0],
              ["f", -4.0]]}
})";

}  // namespace annulus

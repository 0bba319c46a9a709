#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/input/tokenizer.hpp"
#include "input/temporary.hpp"

namespace annulus {

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

}  // namespace annulus

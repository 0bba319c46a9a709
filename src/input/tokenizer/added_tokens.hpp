#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "input/tokenizer/model.hpp"
#include "input/tokenizer/normalizer.hpp"
#include "input/tokenizer/trie.hpp"

namespace annulus {

/// A token that is found in a text before a model sees it.
struct AddedToken {
  std::string content;
  std::uint32_t id = 0;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = false;
};

/// What tokenizer.json's added_tokens says.
std::vector<AddedToken> read_added_tokens(const Node& node, const Vocabulary& vocabulary);

/// Finds some added tokens in a text: from left to right, the longest of those that begin at one place.
class AddedTokenFinder {
 public:
  /// The contents are the tokens' or, with a normalizer, what it makes of them. Of two that are alike the first counts.
  AddedTokenFinder(std::vector<AddedToken> tokens, const Normalizer* normalizer);

  struct Found {
    std::uint32_t id;
    Bytes bytes;  // with the white space that belongs to the token
  };
  /// Calls `between` with the stretches between added tokens and `token` with those, in the order of the text.
  void split(std::string_view text, const std::function<void(Bytes)>& between,
             const std::function<void(const Found&)>& token) const;

 private:
  struct Match {
    std::uint32_t token;
    std::size_t end;
  };
  std::optional<Match> longest_at(std::string_view text, std::size_t at) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};  // bytes
  Trie contents_;
};

}  // namespace annulus

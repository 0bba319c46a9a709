#include <gtest/gtest.h>

#include "tokenizer/fixture.hpp"

namespace annulus {
namespace {

using Ids = std::vector<std::uint32_t>;
using Tokens = std::vector<TextToken>;

// The ids and bytes of this file are what Hugging Face tokenizers 0.23 gives.

TEST(CharacterBpe, MarksStandForSpacesAndTheFirstOneForNothing) {
  const Tokenizer tokenizer = TokenizerFolder(small_llama).open();
  EXPECT_EQ(tokenizer.encode("ab  a"), (Tokens{{11, 0, 2}, {5, 2, 3}, {9, 3, 5}}));
  EXPECT_EQ(tokenizer.spelling(11), " ab");
}

TEST(CharacterBpe, TheEarlierRuleGoesFirstAndOfOneRuleTheLeftPlace) {
  const Tokenizer tokenizer =
      TokenizerFolder(with(small_llama, R"(["▁", "a"], ["a", "b"])", R"(["a", "b"], ["▁", "a"])")).open();
  EXPECT_EQ(tokenizer.encode("ab   a"), (Tokens{{11, 0, 2}, {12, 2, 4}, {9, 4, 6}}));
}

TEST(CharacterBpe, WhatTheVocabularyLacksBecomesItsBytesOrOneUnknownToken) {
  const Tokenizer tokenizer = TokenizerFolder(small_llama).open();
  EXPECT_EQ(tokenizer.encode("\u2603a"), (Tokens{{5, 0, 3}, {4, 0, 3}, {3, 0, 3}, {2, 0, 3}, {6, 3, 4}}));
  EXPECT_EQ(tokenizer.encode("xy\u00e4z"), (Tokens{{5, 0, 1}, {0, 0, 2}, {8, 2, 4}, {0, 4, 5}}));
  const Tokenizer apart = TokenizerFolder(with(small_llama, R"("fuse_unk": true)", R"("fuse_unk": false)")).open();
  EXPECT_EQ(apart.encode("xy"), (Tokens{{5, 0, 1}, {0, 0, 1}, {0, 1, 2}}));
}

TEST(CharacterBpe, TextBehindASpecialTokenBeginsAnew) {
  const Tokenizer tokenizer = TokenizerFolder(small_llama).open();
  EXPECT_EQ(tokenizer.encode("a<s>a"), (Tokens{{9, 0, 1}, {1, 1, 4}, {9, 4, 5}}));
  EXPECT_EQ(tokenizer.spelling(4), "\\xe2");
  EXPECT_EQ(tokenizer.spelling(1), "<s>");
}

TEST(CharacterBpe, APieceThatIsATokenNeedsNoRulesWhereRulesAreIgnored) {
  const std::string rules = R"([["▁", "a"], ["a", "b"], ["▁", "ab"], ["▁", "▁"], ["▁a", "b"]])";
  const std::string bare = with(small_llama, rules, "[]");
  EXPECT_EQ(ids_of(TokenizerFolder(bare).open(), "ab"), (Ids{5, 6, 7}));
  const std::string whole = with(bare, R"("ignore_merges": false)", R"("ignore_merges": true)");
  EXPECT_EQ(ids_of(TokenizerFolder(whole).open(), "ab"), (Ids{11}));
  EXPECT_EQ(ids_of(TokenizerFolder(whole).open(), "abb"), (Ids{5, 6, 7, 7}));
}

TEST(WordPiece, TheLongestTokenGoesFirstEvenWhereAShorterOneWouldGoOn) {
  const Tokenizer tokenizer = TokenizerFolder(small_bert).open();
  EXPECT_EQ(tokenizer.encode("unable"), (Tokens{{3, 0, 6}}));  // una, and nothing continues with ble
  EXPECT_EQ(tokenizer.encode("una aa"), (Tokens{{11, 0, 3}, {9, 4, 5}, {10, 5, 6}}));
  EXPECT_EQ(tokenizer.encode("aaaaaaaa aaaaaaaaa").size(), 9U);  // a word of more than 8 characters is not looked at
  EXPECT_EQ(tokenizer.spelling(5), "aff");
}

TEST(WordPiece, CapitalsAccentsAndControlsGoAndIdeographsStandAlone) {
  const Tokenizer tokenizer = TokenizerFolder(small_bert).open();
  EXPECT_EQ(tokenizer.encode("U\u00d1\u0301A!\u6f22\u6f22"), (Tokens{{11, 0, 6}, {8, 6, 7}, {7, 7, 10}, {7, 10, 13}}));
  EXPECT_EQ(tokenizer.encode("u\x01n\xc2\xa0"
                             "a"),
            (Tokens{{4, 0, 3}, {9, 5, 6}}));
}

TEST(WordPiece, SpacesBeforeATokenThatStripsThemAreItsOwn) {
  const Tokenizer tokenizer = TokenizerFolder(small_bert).open();
  EXPECT_EQ(tokenizer.encode("a  [MASK]!"), (Tokens{{9, 0, 1}, {2, 1, 9}, {8, 9, 10}}));
  EXPECT_EQ(Ids(tokenizer.before().begin(), tokenizer.before().end()), (Ids{0}));
  EXPECT_EQ(Ids(tokenizer.after().begin(), tokenizer.after().end()), (Ids{1}));
}

TEST(Unigram, TheLikelierWayGoesFirstAndUnknownNeighboursAreOne) {
  const Tokenizer tokenizer = TokenizerFolder(small_unigram).open();
  EXPECT_EQ(tokenizer.encode("ab abb"), (Tokens{{5, 0, 2}, {5, 2, 5}, {3, 5, 6}}));
  EXPECT_EQ(tokenizer.encode("axyb"), (Tokens{{6, 0, 1}, {0, 1, 3}, {3, 3, 4}}));
  EXPECT_EQ(tokenizer.encode("\ufb00"), (Tokens{{1, 0, 3}, {7, 0, 3}, {7, 0, 3}}));  // the ligature ff
}

}  // namespace
}  // namespace annulus

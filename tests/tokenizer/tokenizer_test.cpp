#include "annulus/input/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tokenizer/fixture.hpp"

namespace annulus {
namespace {

using Ids = std::vector<std::uint32_t>;

TEST(Tokenizer, BytesAreMergedInTheOrderOfTheRulesAndPointIntoTheText) {
  const Tokenizer tokenizer = TokenizerFolder(small_gpt2).open();
  EXPECT_EQ(tokenizer.encode("the the\n that"),
            (std::vector<TextToken>{{10, 0, 3}, {11, 3, 7}, {8, 7, 8}, {5, 8, 9}, {9, 9, 11}, {12, 11, 13}}));
  EXPECT_EQ(tokenizer.encode(""), std::vector<TextToken>());
}

TEST(Tokenizer, PartsOfOneCharacterAllHaveItsBytes) {
  const Tokenizer tokenizer = TokenizerFolder(small_gpt2).open();
  EXPECT_EQ(tokenizer.encode("a\u00e9t"), (std::vector<TextToken>{{0, 0, 1}, {6, 1, 3}, {7, 1, 3}, {4, 3, 4}}));
}

TEST(Tokenizer, SpecialTokensInTheTextAreFoundAndNoneAreAdded) {
  const Tokenizer tokenizer = TokenizerFolder(small_gpt2).open();
  EXPECT_EQ(tokenizer.encode("a<|end|> a"), (std::vector<TextToken>{{0, 0, 1}, {17, 1, 8}, {13, 8, 10}}));
  EXPECT_THAT(tokenizer.before(), testing::ElementsAre(17));
  EXPECT_THAT(tokenizer.after(), testing::IsEmpty());
}

TEST(Tokenizer, SpellingsAreLegible) {
  const Tokenizer tokenizer = TokenizerFolder(small_gpt2).open();
  EXPECT_EQ(tokenizer.vocabulary(), 18);
  EXPECT_EQ(tokenizer.spelling(11), " the");
  EXPECT_EQ(tokenizer.spelling(6), "\\xc3");
  EXPECT_EQ(tokenizer.spelling(8), "\n");
  EXPECT_EQ(tokenizer.spelling(17), "<|end|>");
  EXPECT_EQ(tokenizer.spelling(16), "");
  EXPECT_EQ(tokenizer.spelling(1'000'000'000), "");
}

}  // namespace
}  // namespace annulus

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "tokenizer/fixture.hpp"

namespace annulus {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// The sentence about a document in which something is replaced.
std::string complaint(std::string_view document, std::string_view old, std::string_view better) {
  return complaint_about(with(document, old, better));
}

TEST(BadTokenizer, AMissingFileIsNamed) {
  const TemporaryFolder folder;
  try {
    const Tokenizer tokenizer(folder.at("none"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file);
    EXPECT_THAT(error.what(), HasSubstr("none/tokenizer.json"));
  }
}

TEST(BadTokenizer, WhatIsNoJsonIsNamed) {
  EXPECT_THAT(complaint_about("{"), AllOf(HasSubstr("/tokenizer.json: "), HasSubstr("is not JSON")));
  EXPECT_THAT(complaint_about(""), HasSubstr("is not JSON"));
  EXPECT_THAT(complaint_about("{\"a\": \"\xff\"}"), HasSubstr("is not JSON"));
  EXPECT_THAT(complaint_about("[]"), HasSubstr("must be an object"));
  EXPECT_THAT(complaint_about("{}"), HasSubstr("tokenizer.json: model is missing"));
}

TEST(BadTokenizer, IdsAreWholeNumbersBelowALimit) {
  for (const std::string_view id : {"-1", "1.5", "16777216", "1e3", "18446744073709551616", "null", "\"1\"", "[]"})
    EXPECT_THAT(complaint(small_gpt2, "\"a\": 0", std::string("\"a\": ").append(id)),
                HasSubstr("model.vocab gives \"a\" no id, which is a whole number from 0 to 16777215"));
  EXPECT_THAT(complaint(small_gpt2, "\"id\": 17", "\"id\": -17"), HasSubstr("added_tokens[0].id must be an id"));
  EXPECT_THAT(complaint(small_gpt2, "[17]", "[4294967296]"), HasSubstr("special_tokens.<|end|>.ids[0] must be an id"));
}

TEST(BadTokenizer, RulesNameTokensOfTheVocabulary) {
  EXPECT_THAT(complaint(small_gpt2, "\"th e\"", "\"th x\""),
              HasSubstr("model.merges[1] names \"x\", which is not in the vocabulary"));
  EXPECT_THAT(complaint(small_gpt2, "\"th e\"", "\"e th\""), HasSubstr("names \"eth\""));
  EXPECT_THAT(complaint(small_gpt2, "\"th e\"", "\"the\""), HasSubstr("model.merges[1] must be two tokens"));
  EXPECT_THAT(complaint(small_gpt2, "\"th e\"", "\"t h e\""), HasSubstr("must be two tokens"));
  EXPECT_THAT(complaint(small_gpt2, "\"th e\"", "[\"th\"]"), HasSubstr("must be two tokens"));
  EXPECT_THAT(complaint(small_gpt2, "\"th e\"", "7"), HasSubstr("model.merges[1] must be a text"));
}

TEST(BadTokenizer, WhatIsNotSupportedIsNamedWithItsKey) {
  EXPECT_THAT(complaint(small_gpt2, "\"type\": \"BPE\"", "\"type\": \"WordLevel\""),
              HasSubstr("model is of a type that is not supported: \"WordLevel\""));
  EXPECT_THAT(complaint(small_gpt2, "\"dropout\": null", "\"dropout\": 0.1"),
              HasSubstr("model.dropout is not supported"));
  EXPECT_THAT(complaint(small_gpt2, "\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\""),
              HasSubstr("model.end_of_word_suffix is not supported: \"</w>\""));
  EXPECT_THAT(complaint(small_gpt2, "\"normalizer\": null", R"("normalizer": {"type": "Nmt"})"),
              HasSubstr("normalizer is of a type that is not supported: \"Nmt\""));
  EXPECT_THAT(complaint(small_gpt2, "\"type\": \"ByteLevel\"", "\"type\": \"Else\""),
              HasSubstr("pre_tokenizer is of a type that is not supported: \"Else\""));
  EXPECT_THAT(complaint(small_gpt2, "\"type\": \"TemplateProcessing\"", "\"type\": \"Else\""),
              HasSubstr("post_processor is of a type that is not supported: \"Else\""));
}

TEST(BadTokenizer, TokensHaveOneIdEach) {
  EXPECT_THAT(complaint(small_bert, "\"id\": 2", "\"id\": 3"),
              HasSubstr("added_tokens[0] gives \"[MASK]\" the id 3, and the vocabulary gives it 2"));
  EXPECT_THAT(complaint(small_gpt2, "\"id\": 17", "\"id\": 3"), HasSubstr("which the vocabulary gives another token"));
  EXPECT_THAT(complaint(small_llama, "\"unk_token\": \"<unk>\"", "\"unk_token\": \"<none>\""),
              HasSubstr("model.unk_token is not in the vocabulary: \"<none>\""));
  EXPECT_THAT(complaint(small_unigram, "\"unk_id\": 0", "\"unk_id\": 8"),
              HasSubstr("model.unk_id is not in the vocabulary"));
  EXPECT_THAT(complaint(small_unigram, "-5.0", "\"x\""), HasSubstr("model.vocab[4] must be a token and its score"));
}

TEST(BadTokenizer, DeepDocumentsAreRefusedOrHarmless) {
  constexpr int depth = 200'000;
  std::string deep, nested;
  for (int n = 0; n < depth; ++n) deep += '[';
  for (int n = 0; n < depth; ++n) deep += ']';
  EXPECT_EQ(complaint(small_gpt2, "\"normalizer\": null", "\"decoder\": " + deep), "no error");
  EXPECT_THAT(complaint(small_gpt2, "\"normalizer\": null", "\"normalizer\": " + deep), HasSubstr("must be an object"));
  for (int n = 0; n < depth; ++n) nested += R"({"type": "Sequence", "normalizers": [)";
  for (int n = 0; n < depth; ++n) nested += "]}";
  EXPECT_THAT(complaint(small_gpt2, "\"normalizer\": null", "\"normalizer\": " + nested),
              HasSubstr("is a sequence in more than"));
}

TEST(BadTokenizer, ATextThatIsNotUtf8IsRefused) {
  const Tokenizer tokenizer = TokenizerFolder(small_gpt2).open();
  EXPECT_THROW(tokenizer.encode("a\xc3"), Error);
  EXPECT_EQ(ids_of(tokenizer, std::string_view("a\0a", 3)), (std::vector<std::uint32_t>{0, 0}));  // NUL has no token
}

// Bytes of a document replaced, left out or doubled: a tokenizer, whose tokens lie in the text, or a sentence.
TEST(BadTokenizer, DamagedDocumentsGiveATokenizerOrASentence) {
  constexpr unsigned seed = 20261129;
  std::mt19937 random(seed);
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  constexpr std::string_view text = "the a\u0301b \u6f22! <s>[MASK] \n at", pieces = "{}[]\",:0-9.ntf\\ue_#\xc3\xa9";
  int opened = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string document(std::array{small_gpt2, small_llama, small_bert, small_unigram}[random() % 4]);
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      const std::size_t at = random() % document.size(), count = 1 + random() % 8;
      switch (random() % 4) {
        case 0:
          document[at] = pieces[random() % pieces.size()];
          break;
        case 1:
          document.erase(at, count);
          break;
        case 2:
          document.insert(at, document.substr(random() % document.size(), count));
          break;
        default:
          document[at] = static_cast<char>(document[at] + 1);
      }
    }
    try {
      const Tokenizer tokenizer = TokenizerFolder(document).open();
      ++opened;
      for (const TextToken& token : tokenizer.encode(text)) {
        ASSERT_LE(token.begin, token.end) << document;
        ASSERT_LE(token.end, static_cast<Index>(text.size())) << document;
        ASSERT_LT(token.id, tokenizer.vocabulary()) << document;
        tokenizer.spelling(token.id);
      }
    } catch (const Error& error) {
      ASSERT_EQ(error.failure(), Failure::file) << error.what();
    }
  }
  EXPECT_GT(opened, 30);
}

}  // namespace
}  // namespace annulus

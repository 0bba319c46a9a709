#include "input/tokenizer/normalizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>

#include "annulus/base/error.hpp"
#include "input/tokenizer/characters.hpp"

namespace annulus {
namespace {

Normalizer normalizer(const nlohmann::json& document) {
  const std::string file = "tokenizer.json";
  return read_normalizer(Node(document, file, "normalizer"));
}

struct Changed {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> sources;  // of each character
};

Changed changed(const nlohmann::json& document, std::string_view text) {
  const Traced original(text);
  const auto result = normalizer(document).apply(original, {0, text.size()});
  const Traced& traced = result ? *result : original;
  Changed out{std::string(traced.text()), {}};
  std::size_t hint = 0;
  for (std::size_t at = 0; at < out.text.size(); at += character_at(out.text, at).bytes) {
    const Bytes source = traced.source({at, at + character_at(out.text, at).bytes}, hint);
    out.sources.emplace_back(source.begin, source.end);
  }
  return out;
}

using Sources = std::vector<std::pair<std::size_t, std::size_t>>;

std::string random_text(std::mt19937& random) {
  // Latin, marks of several classes, Hangul in parts and whole, compatible forms, an ideograph, an emoji.
  static constexpr char32_t letters[] =
      U"aeS \u00c5\u212b\u1e9b\u0301\u0323\u0327\u0308\u0345\u1100\u1161\u11a8\uac00\uac01\ufb01"
      U"\u00bd\u3304\u304b\u3099\u6f22\u2f81a\U0001f600\U0001d15e\u0f73";
  std::string text;
  for (auto n = random() % 12; n > 0; --n) text += utf8(letters[random() % (std::size(letters) - 1)]);
  return text;
}

TEST(Normalizer, FormsOfUnicodeAreThoseOfTheLibrary) {
  std::mt19937 random(3);
  SCOPED_TRACE("seed 3");
  const std::pair<const char*, int> forms[] = {{"NFC", UTF8PROC_COMPOSE},
                                               {"NFD", UTF8PROC_DECOMPOSE},
                                               {"NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                                               {"NFKD", UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
  for (int round = 0; round < 2000; ++round) {
    const std::string text = random_text(random);
    for (const auto& [name, options] : forms) {
      utf8proc_uint8_t* expected = nullptr;
      const auto bytes = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                      static_cast<utf8proc_ssize_t>(text.size()), &expected,
                                      static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
      ASSERT_GE(bytes, 0);
      const std::string its(reinterpret_cast<const char*>(expected), static_cast<std::size_t>(bytes));
      std::free(expected);
      ASSERT_EQ(changed({{"type", name}}, text).text, its) << name << " of " << text;
    }
  }
}

// Whatever the steps: sources lie in the text, are whole characters, and do not go back.
TEST(Normalizer, EveryCharacterPointsIntoTheText) {
  std::mt19937 random(4);
  SCOPED_TRACE("seed 4");
  const nlohmann::json steps[] = {{{"type", "NFC"}},
                                  {{"type", "NFKD"}},
                                  {{"type", "Lowercase"}},
                                  {{"type", "StripAccents"}},
                                  {{"type", "Strip"}},
                                  {{"type", "BertNormalizer"}},
                                  {{"type", "Prepend"}, {"prepend", "\u2581"}},
                                  {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}},
                                  {{"type", "Replace"}, {"pattern", {{"Regex", "[ae]+"}}}, {"content", ""}}};
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_text(random);
    nlohmann::json parts = nlohmann::json::array();
    for (auto n = 1 + random() % 4; n > 0; --n) parts.push_back(steps[random() % std::size(steps)]);
    const Changed result = changed({{"type", "Sequence"}, {"normalizers", parts}}, text);
    for (const auto& [begin, end] : result.sources) {
      ASSERT_LE(end, text.size());
      ASSERT_TRUE(begin == end || is_utf8(std::string_view(text).substr(begin, end - begin))) << parts.dump();
    }
  }
}

TEST(Normalizer, PartsOfACharacterAllStandForIt) {
  const Changed apart = changed({{"type", "NFD"}}, "x\u00e9");
  EXPECT_EQ(apart.text, "xe\u0301");
  EXPECT_EQ(apart.sources, (Sources{{0, 1}, {1, 3}, {1, 3}}));
  const Changed together = changed({{"type", "NFC"}}, "e\u0301x");
  EXPECT_EQ(together.sources, (Sources{{0, 1}, {3, 4}}));  // as Hugging Face has it: of the first character
}

TEST(Normalizer, WhatIsPrependedStandsForTheFirstCharacterAndWhatIsStrippedForNothing) {
  const Changed result =
      changed({{"type", "Sequence"}, {"normalizers", {{{"type", "Strip"}}, {{"type", "Prepend"}, {"prepend", ">>"}}}}},
              " \u00e4b\n");
  EXPECT_EQ(result.text, ">>\u00e4b");
  EXPECT_EQ(result.sources, (Sources{{1, 3}, {1, 3}, {1, 3}, {3, 4}}));
  EXPECT_EQ(changed({{"type", "Prepend"}, {"prepend", "x"}}, "").text, "");
}

TEST(Normalizer, WhatTakesThePlaceOfAMatchStandsForItsLastCharacter) {
  const Changed result = changed({{"type", "Replace"}, {"pattern", {{"Regex", " +"}}}, {"content", "\u2581"}}, "a   b");
  EXPECT_EQ(result.text, "a\u2581b");
  EXPECT_EQ(result.sources, (Sources{{0, 1}, {3, 4}, {4, 5}}));
}

TEST(Normalizer, LowerCaseMayBeTwoCharacters) {
  EXPECT_EQ(changed({{"type", "Lowercase"}}, "\u0130\u00c4\u1e9e").text, "i\u0307\u00e4\u00df");
}

TEST(Normalizer, WhatIsNotKnownIsRefused) {
  EXPECT_THROW(normalizer({{"type", "Precompiled"}}), Error);
  EXPECT_THROW(normalizer({{"type", "Replace"}, {"pattern", {{"Regex", "(a)"}}}, {"content", "$1"}}), Error);
  EXPECT_THROW(normalizer({{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}}), Error);
}

}  // namespace
}  // namespace annulus

#include "input/tokenizer/splitters.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "annulus/base/error.hpp"
#include "input/tokenizer/characters.hpp"

namespace annulus {
namespace {

using testing::HasSubstr;
using Strings = std::vector<std::string>;

std::string shown(const nlohmann::json& document) { return document.dump(); }

// The pieces that a pre_tokenizer makes of a text.
Strings pieces(const nlohmann::json& document, std::string_view text) {
  SCOPED_TRACE(shown(document));
  const std::string file = "tokenizer.json";
  const PreTokenizer pre_tokenizer = read_pre_tokenizer(Node(document, file, "pre_tokenizer"));
  const Traced traced(text);
  Strings found;
  const std::function<void(const Piece&, std::size_t)> split = [&](const Piece& piece, std::size_t step) {
    if (piece.bytes.count() == 0) return;
    if (step == pre_tokenizer.steps.size()) return found.emplace_back(piece.view()), void();
    pre_tokenizer.steps[step]->split(piece, [&](const Piece& part) { split(part, step + 1); });
  };
  split({&traced, {0, text.size()}}, 0);
  return found;
}

nlohmann::json at_matches(std::string_view regex, std::string_view behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behavior}, {"invert", invert}};
}

std::string complaint(const nlohmann::json& document) {
  try {
    pieces(document, "a");
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file);
    return error.what();
  }
  return "no error";
}

TEST(Splitters, DelimitersGoWhereTheyAreSent) {
  const std::string text = "the-final--end";
  EXPECT_EQ(pieces(at_matches("-", "Isolated"), text), (Strings{"the", "-", "final", "-", "-", "end"}));
  EXPECT_EQ(pieces(at_matches("-", "Removed"), text), (Strings{"the", "final", "end"}));
  EXPECT_EQ(pieces(at_matches("-", "MergedWithPrevious"), text), (Strings{"the-", "final-", "-", "end"}));
  EXPECT_EQ(pieces(at_matches("-", "MergedWithNext"), text), (Strings{"the", "-final", "-", "-end"}));
  EXPECT_EQ(pieces(at_matches("-", "Contiguous"), text), (Strings{"the", "-", "final", "--", "end"}));
  EXPECT_EQ(pieces(at_matches("[a-z]+", "Removed", true), text), (Strings{"the", "final", "end"}));
}

TEST(Splitters, EmptyMatchesDoNotStopTheSearch) {
  EXPECT_EQ(pieces(at_matches("", "Isolated"), "a\u00e9"), (Strings{"a", "\u00e9"}));
  EXPECT_EQ(pieces(at_matches("b*", "Isolated"), "abba"), (Strings{"a", "bb", "a"}));
}

// All but Removed keep every byte, whatever the text and the expression.
TEST(Splitters, PiecesSideBySideAreTheText) {
  std::mt19937 random(7);
  SCOPED_TRACE("seed 7");
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (auto n = random() % 20; n > 0; --n) text += utf8(U"ab- \n\u00e9\u6f22\U0001f600"[random() % 8]);
    for (const std::string_view regex : {"-", "[ab]+", "\\s+(?!\\S)|\\s+", "a*", "\\b", "(?i:A)|\\p{Han}"})
      for (const std::string_view behavior : {"Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}) {
        std::string together;
        for (const std::string& piece : pieces(at_matches(regex, behavior), text)) together += piece;
        ASSERT_EQ(together, text);
      }
  }
}

TEST(Splitters, WordsOfGpt2TakeTheSpaceBeforeThem) {
  const nlohmann::json gpt2 = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_EQ(pieces(gpt2, "I'll go  home,\u00a0now 12\n\n"),
            (Strings{"I", "'ll", " go", " ", " home", ",", "\u00a0", "now", " 12", "\n\n"}));
}

TEST(Splitters, TheExpressionsOfLlama3AndQwen2AreTakenAsTheyAre) {
  const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
      R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(pieces(at_matches(llama3, "Isolated"), "We'LL see 12345  (x)\r\n  \u6f22\u5b57"),
            (Strings{"We", "'LL", " see", " ", "123", "45", " ", " (", "x", ")\r\n", " ", " \u6f22\u5b57"}));
}

TEST(Splitters, LettersFollowWhereByteLevelIsNotTheLastStep) {
  const nlohmann::json steps = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "ByteLevel"}, {"add_prefix_space", true}}, {{"type", "Digits"}, {"individual_digits", true}}}}};
  EXPECT_EQ(pieces(steps, "a 1\u00e9"), (Strings{"\u0120a", "\u0120", "1", "\u00c3\u00a9"}));
}

TEST(Splitters, AMarkStandsForASpaceAndBeforeTheText) {
  const auto metaspace = [](std::string_view scheme, bool split) {
    return nlohmann::json{
        {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}, {"split", split}};
  };
  EXPECT_EQ(pieces(metaspace("always", true), "a  b"), (Strings{"\u2581a", "\u2581", "\u2581b"}));
  EXPECT_EQ(pieces(metaspace("never", true), "a b"), (Strings{"a", "\u2581b"}));
  EXPECT_EQ(pieces(metaspace("first", false), " a b"), (Strings{"\u2581a\u2581b"}));
}

TEST(Splitters, KindsOfCharactersAreUnicodes) {
  EXPECT_EQ(pieces({{"type", "Whitespace"}}, "na\u00efve, \u0939\u093f!?\u3000x"),
            (Strings{"na\u00efve", ",", "\u0939\u093f", "!?", "x"}));
  EXPECT_EQ(pieces({{"type", "BertPreTokenizer"}}, "a\u2014b $5"), (Strings{"a", "\u2014", "b", "$", "5"}));
  EXPECT_EQ(pieces({{"type", "Digits"}, {"individual_digits", false}}, "a1\u00bdb"), (Strings{"a", "1\u00bd", "b"}));
}

// They would mean something else, or nothing, in the other syntax.
TEST(Splitters, ExpressionsThatMeanSomethingElseAreRefused) {
  for (const std::string_view regex :
       {R"(\Ka)", R"(\Ra)", R"([a&&b])", R"([[:alpha:]])", "(?m)a", "(?<x>a)\\k<x>", "a{,3}", "a{1,2}+", "a{x",
        "(*UTF)a", R"(\x80)", "(a)\\1", "[]a]", "[a[b]]", "\\"})
    EXPECT_THAT(complaint(at_matches(regex, "Isolated")),
                HasSubstr("tokenizer.json: pre_tokenizer.pattern.Regex has a"))
        << regex;
  EXPECT_THAT(complaint(at_matches("(a", "Isolated")), HasSubstr("PCRE2 does not take: missing closing parenthesis"));
  EXPECT_THAT(complaint(at_matches("[b-a]", "Isolated")), HasSubstr("range out of order"));
  EXPECT_THAT(complaint(at_matches("a", "Isolate")), HasSubstr("pre_tokenizer.behavior is not known: \"Isolate\""));
  EXPECT_THAT(complaint({{"type", "UnicodeScripts"}}), HasSubstr("not supported: \"UnicodeScripts\""));
}

TEST(Splitters, AnExpressionThatNeverEndsGivesUp) {
  const nlohmann::json steps = at_matches("(?:(?:a+)+)+(?:b|c)", "Isolated");
  EXPECT_THROW(pieces(steps, std::string(2000, 'a')), Error);
}

}  // namespace
}  // namespace annulus

#include "annulus/input/text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "annulus/base/error.hpp"
#include "input/temporary.hpp"

namespace annulus {
namespace {

using testing::HasSubstr;

Corpus read(const std::vector<std::string>& files, TokenKind kind = TokenKind::words) { return {files, kind}; }

std::vector<std::string> words_of(const std::string& text) {
  const TemporaryFolder folder;
  const Corpus corpus = read({folder.write("text", text)});
  std::vector<std::string> words;
  for (const std::uint32_t id : corpus.ids()) words.push_back(corpus.spelling(id));
  return words;
}

std::string complaint(const std::vector<std::string>& files) {
  try {
    read(files);
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file);
    return error.what();
  }
  return "no error";
}

using Words = std::vector<std::string>;

TEST(Text, LineWrapsQuotationMarksAndCommentMarksDoNotChangeTheWords) {
  const Words words = {"the", "licensor", "may", "not", "sue", "you", "2", "0"};
  EXPECT_EQ(words_of("The Licensor may not sue you 2.0"), words);
  EXPECT_EQ(words_of("> the\n> ``Licensor''\tmay NOT\r\n# sue you: (2.0)"), words);
  EXPECT_EQ(
      words_of("\xef\xbb\xbf\xe2\x80\x9cThe Licensor\xe2\x80\x9d\xc2\xa0may\xe2\x80\x94not sue you\xe2\x80\xa6 2,0"),
      words);
}

TEST(Text, AnApostropheBelongsToTheWordItStandsInside) {
  EXPECT_EQ(words_of("don't 'don\xe2\x80\x99t' dogs' ''x'' a''b '"), (Words{"don't", "don't", "dogs", "x", "a", "b"}));
}

TEST(Text, WordsOfOtherScriptsStayWholeAndIdeographsStandAlone) {
  EXPECT_EQ(words_of("na\xc3\xafve \xce\x91\xce\xb2 \xe6\xbc\xa2\xe5\xad\x97\xe3\x80\x82x"),
            (Words{"na\xc3\xafve", "\xce\x91\xce\xb2", "\xe6\xbc\xa2", "\xe5\xad\x97", "x"}));
}

// Words of random lengths with multi-byte letters, over several chunks of 1 MiB, so that words and characters are cut
// by them.
TEST(Text, EveryTokenIsWhereItsBytesSpellIt) {
  std::mt19937_64 random(20261121);
  SCOPED_TRACE("seed 20261121");
  const TemporaryFolder folder;
  std::string text;
  Words words;
  std::vector<std::pair<Index, Index>> places;
  while (text.size() < (std::size_t{5} << 19)) {
    for (std::uint64_t gap = 1 + random() % 3; gap > 0; --gap) text += " \n.,"[random() % 4];
    const auto begin = static_cast<Index>(text.size());
    std::string word;
    for (std::uint64_t n = 1 + random() % 9; n > 0; --n) {
      if (random() % 3 == 0) word += "\xf0\x90\x8d\x88";  // a Gothic letter, four bytes
      else word += static_cast<char>('a' + random() % 26);
    }
    text += word;
    words.push_back(word);
    places.emplace_back(begin, static_cast<Index>(text.size()));
  }
  const Corpus corpus = read({folder.write("text", text)});
  ASSERT_EQ(corpus.tokens(), static_cast<Index>(words.size()));
  Index total = 0;
  for (Index t = 0; t < corpus.tokens(); ++t) {
    const auto n = static_cast<std::size_t>(t);
    ASSERT_EQ(corpus.spelling(corpus.id(t)), words[n]);
    ASSERT_EQ(std::pair(corpus.byte_begin(t), corpus.byte_end(t)), places[n]);
  }
  for (std::uint32_t id = 0; static_cast<Index>(id) < corpus.vocabulary(); ++id) total += corpus.count(id);
  EXPECT_EQ(total, corpus.tokens());
}

TEST(Text, IdsAreDenseByFirstAppearanceAndCounted) {
  const TemporaryFolder folder;
  const Corpus corpus = read({folder.write("a", "one two One"), folder.write("b", "three two two")});
  EXPECT_EQ(corpus.ids(), (std::vector<std::uint32_t>{0, 1, 0, 2, 1, 1}));
  EXPECT_EQ(corpus.vocabulary(), 3);
  EXPECT_EQ(corpus.count(1), 3);
  EXPECT_EQ(corpus.most_frequent(), 1U);
  EXPECT_DOUBLE_EQ(corpus.frequency(1), 0.5);
}

TEST(Text, DocumentsFollowOneAnotherAndMayBeEmpty) {
  const TemporaryFolder folder;
  const Corpus corpus = read(
      {folder.write("a", ""), folder.write("b", "one two"), folder.write("c", " ... "), folder.write("d", "x y z")});
  EXPECT_EQ(corpus.documents(), 4);
  EXPECT_EQ(std::vector(corpus.offsets().begin(), corpus.offsets().end()), (std::vector<Index>{0, 0, 2, 2, 5}));
  EXPECT_EQ(corpus.document(0), 1);
  EXPECT_EQ(corpus.document(2), 3);
  EXPECT_EQ(corpus.document_of(4), (Range{2, 5}));
  EXPECT_EQ(corpus.bytes({3, 5}), (ByteRange{3, 2, 5}));
  EXPECT_THROW(corpus.bytes({1, 3}), Error);
  EXPECT_THROW(corpus.bytes({1, 1}), Error);
  EXPECT_EQ(read({folder.at("a")}).tokens(), 0);
}

TEST(Text, AFileGivenTwiceCountsOnceUnderWhateverName) {
  const TemporaryFolder folder;
  const std::string file = folder.write("a", "one two"), other = folder.write("b", "three");
  std::filesystem::create_symlink("a", folder.at("link"));
  std::filesystem::create_hard_link(file, folder.at("twin"));
  const Corpus corpus = read({folder.at("link"), other, file, folder.at("./a"), folder.at("twin"), other});
  EXPECT_EQ(corpus.files(),
            (Words{std::filesystem::canonical(file).string(), std::filesystem::canonical(other).string()}));
  EXPECT_EQ(corpus.tokens(), 3);
}

TEST(Text, BytesAreTokensOfOneByteEach) {
  const TemporaryFolder folder;
  const Corpus corpus = read({folder.write("a", "ab a"), folder.write("b", "\xc3\xa9")}, TokenKind::bytes);
  EXPECT_EQ(corpus.ids(), (std::vector<std::uint32_t>{0, 1, 2, 0, 3, 4}));
  EXPECT_EQ(corpus.byte_begin(5), 1);
  EXPECT_EQ(corpus.bytes({1, 4}), (ByteRange{0, 1, 4}));
}

TEST(Text, AVeryLongRunIsCutAndLosesNothing) {
  const TemporaryFolder folder;
  const Corpus corpus = read({folder.write("a", std::string(3'000'000, 'x') + " y")});
  Index covered = 0;
  for (Index t = 0; t + 1 < corpus.tokens(); ++t) covered += corpus.byte_end(t) - corpus.byte_begin(t);
  EXPECT_EQ(covered, 3'000'000);
  EXPECT_EQ(corpus.vocabulary(), 3) << "whole pieces, the rest, and y";
}

TEST(Text, WhatIsNotUtf8IsNamedWithFileAndByte) {
  const TemporaryFolder folder;
  const std::vector<std::pair<std::string, int>> cases = {
      {"abc\xff", 3},      {"\x80", 0},         {"a\xc3(", 2},           {"\xc0\x80", 0},
      {"\xe0\x80\x80", 1}, {"\xed\xa0\x80", 1}, {"\xf5\x80\x80\x80", 0}, {"\xf4\x90\x80\x80", 1},
      {"ab\xe2\x82", 4}};
  for (const auto& [bytes, offset] : cases) {
    const std::string file = folder.write("bad", bytes), what = complaint({file});
    EXPECT_THAT(what, HasSubstr(std::filesystem::canonical(file).string()));
    EXPECT_THAT(what, HasSubstr("at byte " + std::to_string(offset)));
    EXPECT_THROW(read({file}, TokenKind::bytes), Error);
  }
}

TEST(Text, WhatCannotBeReadIsNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(complaint({folder.at("missing")}), HasSubstr("missing: No such file"));
  EXPECT_THAT(complaint({folder.at("")}), HasSubstr("directory"));
  EXPECT_THAT(complaint({"/dev/null"}), HasSubstr("not a regular file"));
  std::filesystem::create_symlink("nowhere", folder.at("dangling"));
  EXPECT_THAT(complaint({folder.at("dangling")}), HasSubstr("dangling"));
  EXPECT_THROW(read({}), Error);
  EXPECT_THROW(parse_token_kind("letters"), Error);
  EXPECT_EQ(parse_token_kind("bytes"), TokenKind::bytes);
}

TEST(Text, AnUnreadableFileIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TemporaryFolder folder;
  const std::string file = folder.write("secret", "x");
  std::filesystem::permissions(file, std::filesystem::perms::none);
  EXPECT_THAT(complaint({file}), HasSubstr("secret: Permission denied"));
}

TEST(Text, RandomBytesAreReadOrRefusedButNeverCrash) {
  std::mt19937_64 random(7);
  SCOPED_TRACE("seed 7");
  const TemporaryFolder folder;
  for (int trial = 0; trial < 300; ++trial) {
    std::string bytes;
    for (std::uint64_t n = random() % 12; n > 0; --n)
      bytes += static_cast<char>(trial % 2 == 0 ? random() % 256 : random() % 3 + 0xc2 - 0x80 * (random() % 2));
    const std::string file = folder.write("noise", bytes);
    try {
      const Corpus corpus = read({file}, TokenKind::bytes);
      EXPECT_EQ(corpus.tokens(), static_cast<Index>(bytes.size()));
    } catch (const Error& error) {
      EXPECT_EQ(error.failure(), Failure::file);
    }
  }
}

}  // namespace
}  // namespace annulus

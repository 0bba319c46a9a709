#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <random>

#include "annulus/base/error.hpp"
#include "annulus/input/text.hpp"
#include "input/temporary.hpp"

namespace annulus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Corpus read(const std::vector<std::string>& files) { return {files, TokenKind::bases}; }

std::string sequence_of(const Corpus& corpus, Index document) {
  std::string sequence;
  for (Index t = corpus.offsets()[static_cast<std::size_t>(document)];
       t < corpus.offsets()[static_cast<std::size_t>(document) + 1]; ++t)
    sequence += corpus.spelling(corpus.id(t));
  return sequence;
}

// "name: SEQUENCE" of each record.
std::vector<std::string> records_of(const std::string& text) {
  const TemporaryFolder folder;
  const Corpus corpus = read({folder.write("a.fa", text)});
  std::vector<std::string> records;
  for (Index d = 0; d < corpus.documents(); ++d) records.push_back(corpus.name(d) + ": " + sequence_of(corpus, d));
  return records;
}

std::string complaint(const std::string& text) {
  const TemporaryFolder folder;
  try {
    read({folder.write("bad.fa", text)});
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file);
    return error.what();
  }
  return "no error";
}

TEST(Fasta, ALineThatBeginsWithAnAngleBeginsARecordNamedByItsFirstWord) {
  EXPECT_THAT(records_of(">chr1 of something\nACGT\nACg\n>chr2\ttoo\nNN*-"),
              ElementsAre("chr1: ACGTACG", "chr2: NN*-"));
  EXPECT_THAT(records_of("> spaced name\nac\n\n gt\t\n"), ElementsAre("spaced: ACGT"));
  EXPECT_THAT(records_of(">a\r\nAC\r\nGT\r\n>b\r\nT"), ElementsAre("a: ACGT", "b: T")) << "CRLF";
  EXPECT_THAT(records_of(">a\rAC\rGT\r>b\rT"), ElementsAre("a: ACGT", "b: T")) << "CR";
  EXPECT_THAT(records_of("\xef\xbb\xbf>a\nAC"), ElementsAre("a: AC")) << "a byte order mark";
}

TEST(Fasta, ASemicolonBeginsARecordOrSaysMoreOfTheOneThatHasJustBegun) {
  EXPECT_THAT(records_of(";old style\n; a remark\nMDSKG*\n>new\n;remark\nACGT\n;third\nT"),
              ElementsAre("old: MDSKG*", "new: ACGT", "third: T"));
}

TEST(Fasta, FilesAndRecordsMayBeEmptyAndNamesMissing) {
  EXPECT_THAT(records_of(""), ElementsAre());
  EXPECT_THAT(records_of("\n \r\n"), ElementsAre());
  EXPECT_THAT(records_of(">"), ElementsAre(": "));
  EXPECT_THAT(records_of(">\n>only headers\n>"), ElementsAre(": ", "only: ", ": "));
  EXPECT_THAT(records_of(">a\nA"), ElementsAre("a: A"));
  EXPECT_THAT(records_of(">\n\n\nac"), ElementsAre(": AC"));
}

TEST(Fasta, NamesCanBePrintedAndEndSomewhere) {
  EXPECT_THAT(records_of(">caf\xe9\x1b[1m\nA\n>caf\xc3\xa9\nC"), ElementsAre("caf\\xe9\\x1b[1m: A", "caf\xc3\xa9: C"));
  EXPECT_THAT(records_of(">" + std::string(3'000'000, 'x') + "\nA"), ElementsAre(std::string(1024, 'x') + ": A"));
}

TEST(Fasta, WhatIsNoResidueIsNamedWithFileAndByte) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {">a\nAC4T", "has '4' at byte 5"},
      {">a\nAC\nGT.", "has '.' at byte 8"},
      {">a\nA" + std::string(1, '\0'), "has \\x00 at byte 4"},
      {">a\nA\xe9", "has \\xe9 at byte 4"},
      {">a\nAC >b\nGT", "has '>' at byte 6"},
      {"ACGT\n>a\nA", "has 'A' before one, at byte 0"},
      {" \n ACGT\n>a\nA", "has 'A' before one, at byte 3"},
      {"\n\n@read\nACGT\n+\n!!!!\n", "has '@' before one, at byte 2"},
  };
  for (const auto& [text, words] : cases) {
    EXPECT_THAT(complaint(text), HasSubstr(words));
    EXPECT_THAT(complaint(text), HasSubstr("bad.fa"));
  }
}

// A FASTA text, and where each of its residues stands.
struct Written {
  std::string text;
  std::vector<std::pair<char, Index>> residues;
  std::vector<Index> offsets = {0};
};

Written random_fasta(std::mt19937_64& random, Index most_lines, Index most_bases) {
  static constexpr std::array<std::string_view, 4> ends = {"\n", "\r\n", "\n\n", " \t\n"};
  Written written;
  for (std::uint64_t record = random() % 5; record > 0; --record) {
    written.text += ">r" + std::to_string(record) + " more ACGT words" + std::string(ends[random() % 2]);
    for (std::uint64_t line = random() % static_cast<std::uint64_t>(most_lines); line > 0; --line) {
      for (std::uint64_t n = random() % static_cast<std::uint64_t>(most_bases); n > 0; --n) {
        if (random() % 40 == 0) written.text += ' ';
        const char letter = "ACGTNacgtn*-"[random() % 12];
        written.residues.emplace_back(letter >= 'a' ? letter - 'a' + 'A' : letter,
                                      static_cast<Index>(written.text.size()));
        written.text += letter;
      }
      written.text += ends[random() % ends.size()];
    }
    written.offsets.push_back(static_cast<Index>(written.residues.size()));
  }
  if (random() % 2 == 0)  // no line end at the end
    while (!written.text.empty() && std::string_view(" \t\r\n").find(written.text.back()) != std::string_view::npos)
      written.text.pop_back();
  return written;
}

void expect_places(const Corpus& corpus, const std::vector<Written>& files) {
  Index token = 0, document = 0;
  for (const Written& written : files) {
    for (std::size_t d = 0; d + 1 < written.offsets.size(); ++d, ++document)
      ASSERT_EQ(corpus.offsets()[static_cast<std::size_t>(document) + 1] -
                    corpus.offsets()[static_cast<std::size_t>(document)],
                written.offsets[d + 1] - written.offsets[d]);
    for (const auto& [letter, byte] : written.residues) {
      ASSERT_EQ(corpus.spelling(corpus.id(token)), std::string(1, letter)) << "token " << token;
      ASSERT_EQ(corpus.byte_begin(token), byte) << "token " << token;
      ASSERT_EQ(corpus.byte_end(token), byte + 1);
      ++token;
    }
  }
  ASSERT_EQ(corpus.documents(), document);
  ASSERT_EQ(corpus.tokens(), token);
}

TEST(Fasta, EveryBaseIsWhereItStandsInItsFile) {
  std::mt19937_64 random(20261129);
  SCOPED_TRACE("seed 20261129");
  const TemporaryFolder folder;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<Written> files;
    std::vector<std::string> paths;
    for (std::uint64_t n = 0; n < 1 + random() % 3; ++n) {
      files.push_back(
          random_fasta(random, 1 + static_cast<Index>(random() % 12), 1 + static_cast<Index>(random() % 90)));
      paths.push_back(folder.write(sentence(trial, "-", n, ".fa"), files.back().text));
    }
    expect_places(read(paths), files);
  }
}

// Lines of a megabyte and more lie across the chunks in which files are read, and so do names and line ends.
TEST(Fasta, EveryBaseOfLongLinesIsWhereItStands) {
  std::mt19937_64 random(20261130);
  SCOPED_TRACE("seed 20261130");
  const TemporaryFolder folder;
  Written written;
  while (written.residues.size() < 2'500'000) written = random_fasta(random, 6, 3'000'000);
  expect_places(read({folder.write("a.fa", written.text)}), {written});
}

TEST(Fasta, RandomBytesAreReadOrRefusedButNeverCrash) {
  std::mt19937_64 random(8);
  SCOPED_TRACE("seed 8");
  const TemporaryFolder folder;
  int read_files = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    std::string bytes = trial % 3 == 0 ? "" : ">";
    for (std::uint64_t n = random() % 16; n > 0; --n)
      bytes += trial % 2 == 0 ? static_cast<char>(random() % 256) : ">;\n\r aC*\t"[random() % 9];
    const std::string file = folder.write("noise.fa", bytes);
    try {
      const Corpus corpus = read({file});
      ++read_files;
      for (Index t = 0; t < corpus.tokens(); ++t) {
        const char letter = bytes[static_cast<std::size_t>(corpus.byte_begin(t))];
        ASSERT_EQ(corpus.spelling(corpus.id(t)).front(), letter >= 'a' ? letter - 'a' + 'A' : letter);
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.failure(), Failure::file);
    }
  }
  EXPECT_GT(read_files, 500);
}

TEST(Fasta, TitlesTellDocumentsApart) {
  const TemporaryFolder folder;
  const std::string a = folder.write("a.fa", ">x\nA\n>y\nC\n>x\nG\n>\nT"), b = folder.write("b.fa", ">x\nA");
  const Corpus one = read({a});
  EXPECT_EQ(one.title(0), "x, record 1");
  EXPECT_EQ(one.title(1), "y");
  EXPECT_EQ(one.title(2), "x, record 3");
  EXPECT_EQ(one.title(3), "record 4");
  const Corpus two = read({folder.write("empty.fa", ""), a, b, a});
  EXPECT_EQ(two.documents(), 5) << "a file given twice is read once";
  EXPECT_EQ(two.files().size(), 3U);
  EXPECT_EQ(two.title(1), two.files()[1] + ", y");
  EXPECT_EQ(two.title(4), two.files()[2] + ", x");
  EXPECT_EQ(two.path(4), std::filesystem::canonical(b).string());
}

TEST(Fasta, IsKnownByTheNamesOfFiles) {
  const auto usual = [](const std::vector<std::string>& files) { return usual_token_kind(files); };
  EXPECT_EQ(usual({"a.fa", "b.FASTA", "c.fna.gz", "d.ffn", "e.frn", "f.faa", "g.fa.bgz"}), TokenKind::bases);
  EXPECT_EQ(usual({"a.txt", "fa", "b.fab", "c.gz", "d.fa.txt"}), TokenKind::words);
  try {
    usual({"a.fa", "b.txt"});
    FAIL() << "mixed";
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::usage);
    EXPECT_THAT(error.what(),
                testing::AllOf(HasSubstr("a.fa is FASTA"), HasSubstr("b.txt is not"), HasSubstr("--tokens")));
  }
}

}  // namespace
}  // namespace annulus

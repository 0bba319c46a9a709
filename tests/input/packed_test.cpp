#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <random>

#include "annulus/base/error.hpp"
#include "annulus/input/text.hpp"
#include "input/temporary.hpp"

namespace annulus {
namespace {

using testing::HasSubstr;

// One member of a gzip file.
std::string packed(const std::string& text, int level = 6) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string bytes(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_out = static_cast<uInt>(bytes.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  bytes.resize(stream.total_out);
  deflateEnd(&stream);
  return bytes;
}

std::string in_members(const std::string& text, std::size_t member_bytes) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size(); at += member_bytes) bytes += packed(text.substr(at, member_bytes));
  return bytes;
}

// The same member with bgzip's extra field, whose two bytes of length nobody here reads.
std::string of_bgzip(std::string member) {
  member[3] = static_cast<char>(member[3] | 4);
  return member.insert(10, std::string("\6\0BC\2\0\0\0", 8));
}

std::string words(std::mt19937_64& random, std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += sentence("w", random() % 5000, random() % 9 == 0 ? "\n" : " ");
  return text;
}

void expect_same(const Corpus& one, const Corpus& other) {
  ASSERT_EQ(one.ids(), other.ids());
  for (Index t = 0; t < one.tokens(); ++t) {
    ASSERT_EQ(one.byte_begin(t), other.byte_begin(t));
    ASSERT_EQ(one.byte_end(t), other.byte_end(t));
  }
  EXPECT_EQ(std::vector(one.offsets().begin(), one.offsets().end()),
            std::vector(other.offsets().begin(), other.offsets().end()));
}

std::string complaint(const TemporaryFolder& folder, const std::string& bytes) {
  try {
    const Corpus corpus(std::vector{folder.write("bad.gz", bytes)}, TokenKind::words);
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file);
    return error.what();
  }
  return "no error";
}

// Texts longer than the chunks in which files are read and unpacked, in members of many sizes, with padding behind them.
TEST(Packed, ATextIsReadAsItWasBeforeItWasPacked) {
  std::mt19937_64 random(20261129);
  SCOPED_TRACE("seed 20261129");
  const TemporaryFolder folder;
  const std::string text = words(random, 2'600'000), fasta = ">a\n" + std::string(1'500'000, 'A') + "\n>b\nCC\nG";
  const std::vector<std::string> ways = {packed(text), packed(text, 0), in_members(text, 65280),
                                         in_members(text, 3'000),
                                         in_members(text, 1'000'000) + std::string(700, '\0') + packed("")};
  for (const TokenKind kind : {TokenKind::words, TokenKind::bytes}) {
    const Corpus plain(std::vector{folder.write("plain", text)}, kind);
    for (const std::string& bytes : ways) expect_same(plain, Corpus(std::vector{folder.write("packed", bytes)}, kind));
  }
  const Corpus plain(std::vector{folder.write("a.fa", fasta)}, TokenKind::bases);
  expect_same(plain, Corpus(std::vector{folder.write("b.fa", in_members(fasta, 1000))}, TokenKind::bases));
  expect_same(plain, Corpus(std::vector{folder.write("c.fa", of_bgzip(packed(fasta)) + of_bgzip(packed("")))},
                            TokenKind::bases));
  EXPECT_EQ(Corpus(std::vector{folder.write("nothing", packed(""))}, TokenKind::words).tokens(), 0);
}

TEST(Packed, AFileThatIsCutAnywhereIsRefused) {
  std::mt19937_64 random(20261130);
  SCOPED_TRACE("seed 20261130");
  const TemporaryFolder folder;
  const std::string member = packed(words(random, 300)), two = member + packed(words(random, 50));
  for (std::size_t bytes = 2; bytes < two.size(); ++bytes)
    if (bytes != member.size()) {
      EXPECT_THAT(complaint(folder, two.substr(0, bytes)), HasSubstr("cut short"));
    }
  EXPECT_THAT(complaint(folder, of_bgzip(member)), HasSubstr("cut short")) << "bgzip marks the end";
  EXPECT_THAT(complaint(folder, two), HasSubstr("no error"));
}

// Every byte of a member counts but those of the header that say when, where and how it was packed, and the last bits
// before the checksum.
TEST(Packed, AFileThatIsDamagedAnywhereIsRefused) {
  std::mt19937_64 random(20261201);
  SCOPED_TRACE("seed 20261201");
  const TemporaryFolder folder;
  const std::string member = packed(words(random, 200)), two = member + member;
  for (std::size_t at = 2; at < two.size(); ++at) {
    const std::size_t inside = at % member.size();
    if ((inside >= 3 && inside < 10) || inside == member.size() - 9) continue;
    std::string bytes = two;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
    EXPECT_THAT(complaint(folder, bytes), testing::AnyOf(HasSubstr("damaged near byte"), HasSubstr("cut short")))
        << "byte " << at;
    EXPECT_THAT(complaint(folder, bytes), HasSubstr("bad.gz"));
  }
  EXPECT_THAT(complaint(folder, member + "more"), HasSubstr("damaged near byte"));
  EXPECT_THAT(complaint(folder, std::string("\x1f\x8b\x08\x04\0\0\0\0\0\0\xff\xff", 12)), HasSubstr("cut short"))
      << "an extra field longer than the file";
}

TEST(Packed, PositionsInSentencesAreThoseOfTheText) {
  const TemporaryFolder folder;
  EXPECT_THAT(complaint(folder, packed("abc\xff")), testing::AllOf(HasSubstr("packed in"), HasSubstr("at byte 3")));
}

}  // namespace
}  // namespace annulus

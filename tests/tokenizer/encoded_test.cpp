#include "annulus/input/encoded.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tokenizer/fixture.hpp"

namespace annulus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

EncodedTexts encoded(const std::vector<std::string>& files) { return {files, TokenizerFolder(small_gpt2).open()}; }
EncodedTexts numbers(const std::vector<std::string>& files) { return EncodedTexts(files); }

template <class Read>
std::string complaint(const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file);
    return error.what();
  }
  return "no error";
}

TEST(EncodedTexts, EachFileIsADocumentWithTheTokensOfThePostProcessorAroundIt) {
  const TemporaryFolder folder;
  const std::string a = folder.write("a", "the at"), b = folder.write("b", ""), c = folder.write("c", "a");
  const EncodedTexts texts = encoded({a, b, a, c});
  EXPECT_THAT(texts.ids(), ElementsAre(17, 10, 5, 12, 17, 17, 0));
  EXPECT_THAT(texts.offsets(), ElementsAre(0, 4, 5, 7));
  EXPECT_EQ(texts.documents(), 3);
  EXPECT_EQ(texts.files().size(), 3U);
  EXPECT_THAT(texts.path(2), testing::EndsWith("/c"));
  EXPECT_EQ(texts.byte_begin(0), 0);
  EXPECT_EQ(texts.byte_end(0), 0);
  EXPECT_EQ(texts.byte_begin(2), 3);
  EXPECT_EQ(texts.byte_end(2), 4);
  for (Index token = 0; token < texts.tokens(); ++token) {
    EXPECT_EQ(texts.document_of(token).begin, texts.offsets()[texts.document(token)]);
    EXPECT_TRUE(texts.document_of(token).contains(token));
  }
}

TEST(EncodedTexts, ASymbolicLinkIsTheFileItNames) {
  const TemporaryFolder folder;
  const std::string file = folder.write("a", "the");
  ASSERT_EQ(::symlink(file.c_str(), folder.at("link").c_str()), 0);
  EXPECT_EQ(encoded({folder.at("link"), file}).files(), encoded({file}).files());
}

TEST(EncodedTexts, WhatIsNotUtf8IsNamedWithItsByte) {
  const TemporaryFolder folder;
  const std::string bad = folder.write("bad", "abc\xff"), cut = folder.write("cut", "a\xc3");
  EXPECT_THAT(complaint([&] { encoded({bad}); }), HasSubstr("bad is not at byte 3"));
  EXPECT_THAT(complaint([&] { encoded({cut}); }), HasSubstr("cut ends inside a character at byte 2"));
  EXPECT_THAT(complaint([&] { encoded({folder.at("none")}); }), HasSubstr("none: No such file"));
}

TEST(EncodedTexts, NumbersAreIdsWithTheBytesOfTheirDigits) {
  const TemporaryFolder folder;
  const EncodedTexts texts = numbers({folder.write("a", "15, 7\n4294967295,,\t0"), folder.write("b", " 3")});
  EXPECT_THAT(texts.ids(), ElementsAre(15, 7, 4294967295U, 0, 3));
  EXPECT_THAT(texts.offsets(), ElementsAre(0, 4, 5));
  EXPECT_EQ(texts.byte_begin(1), 4);
  EXPECT_EQ(texts.byte_end(1), 5);
  EXPECT_EQ(texts.byte_begin(2), 6);
  EXPECT_EQ(texts.byte_end(2), 16);
  EXPECT_EQ(texts.byte_begin(4), 1);
}

TEST(EncodedTexts, WhatIsNoIdIsNamedWithItsByte) {
  const TemporaryFolder folder;
  EXPECT_THAT(complaint([&] { numbers({folder.write("a", "1 2 x")}); }), HasSubstr("a has something else at byte 4"));
  EXPECT_THAT(complaint([&] { numbers({folder.write("b", "1 -2")}); }), HasSubstr("at byte 2"));
  EXPECT_THAT(complaint([&] { numbers({folder.write("c", "1 4294967296")}); }), HasSubstr("larger one at byte 2"));
  EXPECT_THAT(complaint([&] { numbers({folder.write("d", std::string(100, '9'))}); }), HasSubstr("at byte 0"));
}

}  // namespace
}  // namespace annulus

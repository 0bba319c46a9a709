#include "annulus/model/checkpoint.hpp"

#include <gmock/gmock.h>

#include <array>
#include <cstring>
#include <random>

#include "annulus/base/error.hpp"
#include "checkpoint/writer.hpp"
#include "model/checkpoint/safetensors.hpp"

namespace annulus::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::array<DType, 4> types{DType::f32, DType::bf16, DType::f16, DType::f64};

// What an Error (file) says that the work ends with.
template <class Work>
std::string complaint(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::file) << error.what();
    return error.what();
  }
  return "nothing";
}
std::string complaint_about(std::string_view file) {
  const Folder folder;
  folder.write("model.safetensors", file);
  return complaint([&] { return Checkpoint(folder.path()).bytes(); });
}
std::string complaint_about_index(std::string_view index) {
  const Folder folder;
  folder.write("a.safetensors", safetensors({written("x", DType::f32, {1}, {1})}));
  folder.write("model.safetensors.index.json", index);
  return complaint([&] { return Checkpoint(folder.path()).bytes(); });
}

std::string one(std::string_view about, std::size_t data_bytes = 8) {
  return file_of("{\"x\":" + std::string(about) + "}", std::string(data_bytes, '\0'));
}

TEST(Checkpoint, HasTheTensorsOfItsFileByteForByte) {
  const Folder folder;
  std::vector<Written> tensors;
  for (const DType type : types)
    tensors.push_back(written("of " + std::string(name_of(type)), type, {2, 3}, {1, -2, 3.5, 0, 5, 6}));
  tensors.push_back(written("a number", DType::f32, {}, {7}));
  tensors.push_back(written("nothing", DType::f16, {3, 0, 2}, {}));
  for (const std::size_t pad : {0U, 1U, 5U}) {  // elements need not be aligned
    folder.write("model.safetensors", safetensors(tensors, pad));
    const Checkpoint checkpoint(folder.path());
    EXPECT_THAT(checkpoint.files(), ElementsAre(folder.path() + "/model.safetensors"));
    EXPECT_EQ(checkpoint.tensors().size(), tensors.size());
    Index bytes = 0;
    for (const Written& expected : tensors) {
      const Tensor& tensor = checkpoint.tensor(expected.name, expected.dims);
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()), expected.bytes);
      EXPECT_EQ(tensor.dims, expected.dims);
      EXPECT_EQ(tensor.file, folder.path() + "/model.safetensors");
      bytes += static_cast<Index>(expected.bytes.size());
    }
    EXPECT_EQ(checkpoint.bytes(), bytes);
    for (std::size_t n = 0; n < types.size(); ++n)
      EXPECT_EQ(checkpoint.find("of " + std::string(name_of(types[n])))->type, types[n]);
  }
}

TEST(Checkpoint, CanBeReadAgainAfterItsPagesAreReleased) {
  const Folder folder;
  folder.write("model.safetensors", safetensors({written("w", DType::f32, {5000}, std::vector<double>(5000, 1.25))}));
  const Checkpoint checkpoint(folder.path());
  const Tensor& tensor = *checkpoint.find("w");
  const std::vector<std::byte> before(tensor.bytes.begin(), tensor.bytes.end());
  checkpoint.release(tensor);
  EXPECT_TRUE(std::ranges::equal(before, tensor.bytes));
}

TEST(Checkpoint, JoinsTheShardsThatAnIndexNames) {
  const Folder folder;
  folder.write("1.safetensors", safetensors({written("a", DType::f32, {1}, {1}), written("b", DType::f32, {1}, {2})}));
  folder.write("2.safetensors", safetensors({written("c", DType::bf16, {1}, {3})}));
  folder.write("other.safetensors", "not named, so not read");
  folder.write(
      "model.safetensors.index.json",
      R"({"metadata":{"total_size":10},"weight_map":{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}})");
  const Checkpoint checkpoint(folder.path());
  EXPECT_THAT(checkpoint.files(), ElementsAre(folder.path() + "/1.safetensors", folder.path() + "/2.safetensors"));
  EXPECT_TRUE(checkpoint.has("a") && checkpoint.has("b") && checkpoint.has("c"));
  EXPECT_EQ(checkpoint.find("c")->file, folder.path() + "/2.safetensors");
  EXPECT_EQ(checkpoint.bytes(), 10);
}

TEST(Checkpoint, StaysInPlaceWhenItMoves) {
  const Folder folder;
  folder.write("model.safetensors", safetensors({written("x", DType::f32, {1}, {5})}));
  Checkpoint first(folder.path());
  const Tensor* tensor = first.find("x");
  const Checkpoint second = std::move(first);
  EXPECT_EQ(second.find("x"), tensor);
  float value = 0;
  std::memcpy(&value, tensor->bytes.data(), sizeof value);
  EXPECT_EQ(value, 5);
}

TEST(Checkpoint, SaysWhatIsThereInsteadOfATensor) {
  const Folder folder;
  folder.write("model.safetensors", safetensors({written("transformer.h.0.attn.weight", DType::f32, {2, 1}, {1, 2}),
                                                 written("z", DType::f32, {1}, {1}), written("y", DType::f32, {1}, {1}),
                                                 written("lm_head.weight", DType::f32, {1}, {1})}));
  const Checkpoint checkpoint(folder.path());
  EXPECT_FALSE(checkpoint.has("h.0.attn.weight"));
  EXPECT_EQ(checkpoint.find("h.0.attn.weight"), nullptr);
  EXPECT_THAT(complaint([&] {
                checkpoint.tensor("h.0.attn.weight", std::vector<Index>{2, 1});
              }),
              AllOf(HasSubstr(folder.path()), HasSubstr("no tensor 'h.0.attn.weight'"),
                    HasSubstr("most alike: 'lm_head.weight'"), HasSubstr("'transformer.h.0.attn.weight'")));
  EXPECT_THAT(
      complaint([&] {
        checkpoint.tensor("transformer.h.0.attn.weight", std::vector<Index>{2, 2});
      }),
      AllOf(HasSubstr("model.safetensors"), HasSubstr("'transformer.h.0.attn.weight' must be [2, 2], but is [2, 1]")));
}

TEST(Checkpoint, KeepsTensorsOfOtherTypesUntilTheyAreAskedFor) {
  const Folder folder;
  folder.write("model.safetensors", safetensors({{"mask", "BOOL", {3}, "abc"},
                                                 {"q.weight", "F8_E4M3", {2}, "ab"},
                                                 {"new", "F3_X", {2}, "abc"},
                                                 {"p.qweight", "I32", {1}, "abcd"},
                                                 written("x", DType::f32, {1}, {1})}));
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(checkpoint.bytes(), 4);
  EXPECT_TRUE(checkpoint.has("mask"));
  EXPECT_THAT(complaint([&] { checkpoint.find("q.weight"); }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("'q.weight'"), HasSubstr("F8_E4M3"),
                    HasSubstr("only F32, F16, BF16 and F64")));
  EXPECT_THAT(complaint([&] { checkpoint.find("new"); }), HasSubstr("F3_X"));
  EXPECT_THAT(complaint([&] { checkpoint.tensor("p.weight", std::vector<Index>{1}); }),
              AllOf(HasSubstr("'p.qweight'"), HasSubstr("quantized models are not read")));
}

TEST(Checkpoint, SaysWhichFormatAFolderHasInstead) {
  EXPECT_THAT(complaint([] { Checkpoint("/no such folder").bytes(); }), HasSubstr("is not a folder"));
  const Folder folder;
  const auto said = [&] { return complaint([&] { Checkpoint(folder.path()).bytes(); }); };
  EXPECT_THAT(said(), AllOf(HasSubstr("only safetensors are read"), HasSubstr("has neither")));
  folder.write("pytorch_model.bin", "");
  EXPECT_THAT(said(), AllOf(HasSubstr("only safetensors are read"), HasSubstr("has pytorch_model.bin")));
  folder.write("llama.gguf", "");
  EXPECT_THAT(said(), HasSubstr("llama.gguf, pytorch_model.bin"));
}

TEST(Checkpoint, RefusesAnIndexThatDoesNotDescribeItsShards) {
  EXPECT_EQ(complaint_about_index(R"({"weight_map":{"x":"a.safetensors"}})"), "nothing");
  EXPECT_THAT(complaint_about_index(R"({"weight_map":{"x":"b.safetensors"}})"),
              HasSubstr("b.safetensors: the file cannot be opened"));
  EXPECT_THAT(complaint_about_index(R"({"weight_map":{"y":"a.safetensors"}})"), HasSubstr("'y' should be in"));
  for (const char* path :
       {"../a.safetensors", "/etc/a.safetensors", "./a.safetensors", "a", "", "..", "b\\\\a.safetensors"})
    EXPECT_THAT(complaint_about_index(R"({"weight_map":{"x":")" + std::string(path) + "\"}}"),
                HasSubstr("of the same folder"));
  EXPECT_THAT(complaint_about_index("{}"), HasSubstr("must have a weight_map"));
  EXPECT_THAT(complaint_about_index(""), HasSubstr("not valid"));
  EXPECT_THAT(complaint_about_index(R"({"weight_map":{"x":1}})"), HasSubstr("must name a file"));
}

TEST(Checkpoint, RefusesANameThatTwoShardsHave) {
  for (const std::string other : {"F32", "I32"}) {
    const Folder folder;
    folder.write("1.safetensors",
                 safetensors({written("a", DType::f32, {1}, {1}), written("x", DType::f32, {1}, {1})}));
    folder.write("2.safetensors", safetensors({{"x", other, {1}, "abcd"}, written("b", DType::f32, {1}, {1})}));
    folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
    EXPECT_THAT(complaint([&] { Checkpoint(folder.path()).bytes(); }), HasSubstr("both have a tensor 'x'"));
  }
}

TEST(Checkpoint, RefusesLengthsThatTheFileDoesNotHave) {
  EXPECT_THAT(complaint_about(""), HasSubstr("at least 8 bytes"));
  EXPECT_THAT(complaint_about("1234567"), HasSubstr("at least 8 bytes"));
  for (const std::uint64_t length :
       {std::uint64_t{3}, std::uint64_t{100'000'001}, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    std::string file;
    append(file, length);
    EXPECT_THAT(complaint_about(file + "{}"), HasSubstr("its header would have"));
  }
  EXPECT_EQ(complaint_about(file_of("{}", "")), "nothing");
}

TEST(Checkpoint, RefusesHeadersThatAreNotWhatTheFormatSays) {
  for (const char* header : {"", "{", "{\"x\":}", "nul", "{\"\\ud800\":1}", "\xff", "{\"x\":1e999}"})
    EXPECT_THAT(complaint_about(file_of(header, "")), HasSubstr("JSON"));
  EXPECT_THAT(complaint_about(file_of("[]", "")), HasSubstr("must be a JSON object"));
  EXPECT_THAT(complaint_about(file_of(R"({"x":1,"x":2})", "")), HasSubstr("names 'x' twice"));
  EXPECT_THAT(complaint_about(file_of(std::string(1'000'000, '['), "")), HasSubstr("nests more than"));
  std::string deep;
  for (int n = 0; n < 100'000; ++n) deep += "{\"a\":";
  EXPECT_THAT(complaint_about(file_of(deep, "")), HasSubstr("nests more than"));
  EXPECT_THAT(complaint_about(one("1")), HasSubstr("must have a dtype"));
  EXPECT_THAT(complaint_about(one(R"({"dtype":"F32","shape":[2]})")), HasSubstr("must have a dtype"));
  EXPECT_THAT(complaint_about(one(R"({"dtype":7,"shape":[2],"data_offsets":[0,8]})")), HasSubstr("a word"));
  for (const char* shape : {"2", "[-2]", "[2.0]", "[\"2\"]", "[null]", "{}", "[18446744073709551615]"})
    EXPECT_THAT(complaint_about(one(R"({"dtype":"F32","shape":)" + std::string(shape) + R"(,"data_offsets":[0,8]})")),
                HasSubstr("a shape of whole numbers"));
  for (const char* offsets : {"8", "[0]", "[0,8,8]", "[-1,7]", "[0.0,8]", "{}"})
    EXPECT_THAT(complaint_about(one(R"({"dtype":"F32","shape":[2],"data_offsets":)" + std::string(offsets) + "}")),
                HasSubstr("two data_offsets"));
}

TEST(Checkpoint, RefusesTensorsThatDoNotLieInTheFile) {
  for (const char* offsets :
       {"[0,9]", "[8,0]", "[9,9]", "[1000000,1000008]", "[9223372036854775800,9223372036854775807]"})
    EXPECT_THAT(complaint_about(one(R"({"dtype":"F32","shape":[2],"data_offsets":)" + std::string(offsets) + "}")),
                HasSubstr("must lie in the file"));
  for (const char* shape :
       {"[]", "[1]", "[3]", "[0]", "[9223372036854775807]", "[4294967296,4294967296]", "[4611686018427387904,2]",
        "[9223372036854775807,9223372036854775807,2]", "[2,9223372036854775807,0]"})
    EXPECT_THAT(complaint_about(one(R"({"dtype":"F32","shape":)" + std::string(shape) + R"(,"data_offsets":[0,8]})")),
                HasSubstr("not what its shape needs"));
  const Written x = written("x", DType::f32, {2}, {1, 2}), y = written("y", DType::f32, {2}, {1, 2});
  EXPECT_THAT(complaint_about(file_of("{" + entry_of(x, 0, 8) + "," + entry_of(y, 4, 12) + "}", std::string(12, '\0'))),
              HasSubstr("'x' and 'y' lie in the same bytes"));
  EXPECT_EQ(complaint_about(file_of("{" + entry_of(x, 4, 12) + "," + entry_of(y, 12, 20) + "}", std::string(24, '\0'))),
            "nothing");
}

TEST(Checkpoint, ReadsOrRefusesWhateverBecomesOfAFile) {
  const std::string good = safetensors({written("a.weight", DType::bf16, {3, 4}, std::vector<double>(12, 1)),
                                        {"mask", "BOOL", {3}, "abc"},
                                        written("b", DType::f32, {2}, {1, 2})});
  constexpr unsigned seed = 20260;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const std::string letters = std::string("0123456789-.eE[]{}\",:\\ F3261BI\xff") + '\0';
  int read = 0, refused = 0;
  for (int n = 0; n < 20'000; ++n) {
    std::string file = good;
    for (unsigned changes = 1 + random() % 4; changes > 0 && !file.empty(); --changes) {
      const std::size_t at = random() % file.size();
      switch (random() % 5) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = letters[random() % letters.size()];
          break;
        case 2:
          file.erase(at, 1 + random() % 8);
          break;
        case 3:
          file.insert(at, file.substr(random() % file.size(), random() % 40));
          break;
        default:
          file.resize(at);
      }
    }
    const std::vector<char> memory(file.begin(), file.end());  // as long as the file: a sanitizer sees what lies behind
    try {
      Index bytes = 0;
      for (const checkpoint::Entry& entry : checkpoint::read_safetensors("x", std::as_bytes(std::span(memory)))) {
        std::string copy(reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size());
        bytes += static_cast<Index>(copy.size());
      }
      EXPECT_LE(bytes, static_cast<Index>(file.size()));
      ++read;
    } catch (const Error& error) {
      EXPECT_EQ(error.failure(), Failure::file) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace annulus::testing

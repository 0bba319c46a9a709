#include "annulus/store/cache_file.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmath>
#include <csignal>
#include <random>

#include "store/files.hpp"

namespace annulus {
namespace {

constexpr Index heads = 2, channels = 3, value_channels = 5;

/// A cache and, in memory, what it must hold: a number for each token.
struct Twin {
  std::string path;
  std::vector<float> tokens = {};
};

class CacheTest : public StoreTest {
 protected:
  static Shape k_of(std::size_t tokens) { return {{static_cast<Index>(tokens), heads, channels}, Element::f32}; }
  static Shape v_of(std::size_t tokens) { return {{static_cast<Index>(tokens), heads, value_channels}, Element::f32}; }

  /// Rows of k or v that belong to the tokens.
  Array rows_of(std::span<const float> tokens, Index width) {
    Array rows(device, DType::f32, static_cast<Index>(tokens.size()), heads, width);
    for (std::size_t row = 0; row < tokens.size(); ++row)
      for (Index i = 0; i < heads * width; ++i)
        rows.rows().at<float>(static_cast<Index>(row))[i] = tokens[row] + static_cast<float>(i);
    return rows;
  }

  static CacheMark mark_of(const Twin& twin) {
    return std::filesystem::exists(twin.path) ? CacheFile(twin.path).mark() : CacheMark{};
  }

  /// `count` new tokens, each with a number of its own; written by two ranks, one row of both in turn.
  CacheGrowth begun(Twin& twin, Index count) {
    for (Index i = 0; i < count; ++i) twin.tokens.push_back(next_token_ += 16);
    CacheGrowth growth(twin.path, k_of(twin.tokens.size()), v_of(twin.tokens.size()), mark_of(twin));
    const Index added = growth.layout().find("k").shape.dims[0];
    EXPECT_EQ(growth.layout().find("v").shape.dims[0], added);
    const auto last = std::span(twin.tokens).last(static_cast<std::size_t>(added));
    for (Index rank = 0; rank < std::min<Index>(2, added); ++rank) {
      std::vector<float> mine;
      for (Index row = rank; row < added; row += 2) mine.push_back(last[static_cast<std::size_t>(row)]);
      const annulus::Run run{rank, static_cast<Index>(mine.size()), 2};
      RowWriter rows(growth.layout());
      rows.write_rows("k", {&run, 1}, rows_of(mine, channels));
      rows.write_rows("v", {&run, 1}, rows_of(mine, value_channels));
      rows.finish();
    }
    return growth;
  }
  void grow(Twin& twin, Index count) { begun(twin, count).commit(); }

  /// Whole, and a few strided runs.
  void expect_holds(const CacheFile& file, const std::vector<float>& tokens, std::mt19937& random) {
    ASSERT_EQ(file.shape("k"), k_of(tokens.size()));
    ASSERT_EQ(file.shape("v"), v_of(tokens.size()));
    const auto n = static_cast<Index>(tokens.size());
    std::vector<annulus::Run> runs{{0, n, 1}};
    for (int i = 0; i < 4 && n > 0; ++i) {
      const Index first = std::uniform_int_distribution<Index>(0, n - 1)(random),
                  stride = std::uniform_int_distribution<Index>(1, n)(random);
      runs.push_back({first, (n - 1 - first) / stride + 1, stride});
    }
    std::vector<float> expected;
    for (const annulus::Run& run : runs)
      for (Index i = 0; i < run.count; ++i) expected.push_back(tokens[static_cast<std::size_t>(run.at(i))]);
    for (const auto& [name, width] : {std::pair{"k", channels}, std::pair{"v", value_channels}}) {
      const Array found(device, DType::f32, static_cast<Index>(expected.size()), heads, width);
      file.read_rows(name, runs, found);
      EXPECT_TRUE(same_bytes(found, rows_of(expected, width))) << name << " of " << file.path();
    }
  }
  void expect_holds(const Twin& twin) {
    std::mt19937 random(3);
    expect_holds(CacheFile(twin.path), twin.tokens, random);
  }
  /// Parts beside the cache, used or not.
  static std::size_t parts(const Twin& twin) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(twin.path + ".rows"))
      count += entry.path().extension() == ".h5" ? 1 : 0;
    return count;
  }

 private:
  float next_token_ = 0;
};

TEST_F(CacheTest, HoldsWhatWasAddedInFewPartsAndOlderReadersKeepWhatTheyOpened) {
  for (const unsigned seed : {1U, 2U, 3U}) {
    std::mt19937 random(seed);
    Twin twin{at(sentence("c", seed, ".h5"))};
    std::vector<std::pair<CacheFile, std::vector<float>>> older;
    for (int step = 0; step < 60; ++step) {
      const bool much = step % 7 == 0;  // a prompt among steps of decoding
      const Index count = std::uniform_int_distribution<Index>(0, much ? 50'000 : 2)(random);
      grow(twin, count);
      if (step % 10 == 3) older.emplace_back(CacheFile(twin.path), twin.tokens);
    }
    expect_holds(CacheFile(twin.path), twin.tokens, random);
    for (const auto& [file, tokens] : older) expect_holds(file, tokens, random);
    // A part is as large as all before it, 4 MiB at least; what made the next but one necessary is larger than all
    // before it, too.
    const auto bytes = static_cast<double>(twin.tokens.size()) * heads * (channels + value_channels) * 4;
    EXPECT_LE(static_cast<double>(parts(twin)), 2 + 2 * std::log2(1 + bytes / (Index{4} << 20))) << "seed " << seed;
  }
}

TEST_F(CacheTest, AGrowthWritesNoRowAgainAndTakesNoMoreOfTheDiskThanItAdds) {
  Twin twin{at("c.h5")};
  grow(twin, 50'000);
  const std::string part = at("c.h5.rows/000.h5");
  grow(twin, 7);  // 50,000 rows are less than the least part
  EXPECT_EQ(parts(twin), 1U);
  const std::string before = bytes_in(part);
  struct stat then {
  }, now{};
  ASSERT_EQ(::stat(part.c_str(), &then), 0);
  grow(twin, 1);
  const std::string after = bytes_in(part);
  ASSERT_EQ(::stat(part.c_str(), &now), 0);
  EXPECT_EQ(now.st_ino, then.st_ino);
  EXPECT_LE((now.st_blocks - then.st_blocks) * 512, 512 << 10) << "a record of k and one of v; all rows are 3 MiB";
  ASSERT_EQ(after.size(), before.size());
  Index changed = 0;
  for (std::size_t i = 0; i < after.size(); ++i) changed += after[i] != before[i] ? 1 : 0;
  EXPECT_LE(changed, heads * (channels + value_channels) * Index{sizeof(float)} + 8) << "the row and the claim";
  EXPECT_GT(changed, 0);
  expect_holds(twin);
}

TEST_F(CacheTest, ACopyIsABranch) {
  Twin one{at("one.h5")};
  grow(one, 100);
  Twin other{at("other.h5"), one.tokens};
  std::filesystem::copy_file(one.path, other.path);
  for (int step = 0; step < 3; ++step) {
    grow(one, 1);
    grow(other, 2);
    expect_holds(one);
    expect_holds(other);
  }
  EXPECT_EQ(parts(one), 1U);
  EXPECT_EQ(parts(other), 1U) << "the prompt is shared, what follows is not";
}

TEST_F(CacheTest, AGrowthThatFailsLeavesTheCacheAndGivesItsRowsBack) {
  Twin twin{at("c.h5")};
  { begun(twin, 10); }
  EXPECT_EQ(files(), 0) << "no cache, and no directory";
  twin.tokens.clear();
  grow(twin, 10);
  const std::string before = bytes_in(twin.path);
  for (const Index count : {3, 100'000}) {  // behind the last rows, and in a part of its own
    Twin failing = twin;
    { begun(failing, count); }
    EXPECT_EQ(bytes_in(twin.path), before);
    EXPECT_EQ(parts(twin), 1U);
  }
  grow(twin, 5);
  EXPECT_EQ(parts(twin), 1U) << "the rows were given back";
  expect_holds(twin);
}

TEST_F(CacheTest, AGrowthThatIsKilledLeavesTheCacheAndTheNextOneWorks) {
  Twin twin{at("c.h5")};
  grow(twin, 10);
  for (const Index count : {3, 100'000}) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Twin killed = twin;
      const CacheGrowth growth = begun(killed, count);
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    expect_holds(twin);
    grow(twin, 4);
    expect_holds(twin);
  }
  EXPECT_EQ(files(), 2) << "the cache and its directory";
}

TEST_F(CacheTest, OfTwoGrowthsAtOnceOneWinsAndTheOtherSaysSo) {
  Twin twin{at("c.h5")};
  grow(twin, 10);
  Twin late = twin;
  CacheGrowth first = begun(twin, 3), second = begun(late, 2);
  first.commit();
  expect_error(Failure::file, "changed by somebody else", [&] { second.hold(); });
  expect_error(Failure::file, "changed by somebody else", [&] { second.commit(); });
  expect_holds(twin);
}

TEST_F(CacheTest, WhoCountedTheTokensOfAnotherStateIsRefused) {
  Twin twin{at("c.h5")};
  expect_error(Failure::file, "changed by somebody else",
               [&] { CacheGrowth(twin.path, k_of(2), v_of(2), {.file = 1, .nanoseconds = 1, .tokens = 1}); });
  grow(twin, 10);
  const CacheMark found = mark_of(twin);
  EXPECT_EQ(found.tokens, 10);
  grow(twin, 3);
  for (const CacheMark& old : {found, CacheMark{}})
    for (const std::size_t tokens : {11, 12, 13, 14})
      expect_error(Failure::file, "changed by somebody else",
                   [&] { CacheGrowth(twin.path, k_of(tokens), v_of(tokens), old); });
  expect_holds(twin);
}

TEST_F(CacheTest, AFileThatHoldsMoreIsNotRewritten) {
  for (const bool attribute : {false, true}) {
    const std::string path = at(attribute ? "noted.h5" : "full.h5");
    {
      Draft draft(path);
      draft.add({"k", {3, heads, channels}, Element::f32});
      draft.add({"v", {3, heads, value_channels}, Element::f32});
      if (attribute) draft.attribute("/", "author", "somebody");
      else draft.add({"q", {3, heads, channels}, Element::f32});
      draft.seal();
      draft.commit();
    }
    const std::string before = bytes_in(path);
    const CacheMark found = CacheFile(path).mark();
    expect_error(Failure::file, attribute ? "the attribute 'author'" : "a 'q'",
                 [&] { CacheGrowth(path, k_of(5), v_of(5), found); });
    EXPECT_EQ(bytes_in(path), before);
  }
  EXPECT_EQ(files(), 2);
}

TEST_F(CacheTest, NoMorePartsAreMadeThanCanBeReadAndFewFilesAreOpenAtOnce) {
  Twin twin{at("c.h5")};
  grow(twin, 3);
  const auto of_parts = [&](std::size_t count) {
    Draft draft(at("many.h5"), true);
    draft.attribute("/", "schema", std::string("annulus-cache"));
    const std::vector<std::string> names(count, "c.h5.rows/000.h5");
    const std::vector<Index> rows(count, 1);
    draft.write_small({"parts/file", {static_cast<Index>(count)}, Element::text}, names);
    draft.write_small({"parts/rows", {static_cast<Index>(count)}, Element::i64}, rows);
    draft.seal();
    draft.commit();
  };
  of_parts(4096);
  const CacheMark found = CacheFile(at("many.h5")).mark();
  EXPECT_EQ(found.tokens, 4096);
  expect_error(Failure::file, "as many as can be read",
               [&] { CacheGrowth(at("many.h5"), k_of(4097), v_of(4097), found); });
  of_parts(100);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 60;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  std::mt19937 random(4);
  const CacheFile many(at("many.h5"));
  expect_holds(many, std::vector<float>(100, twin.tokens.front()), random);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_F(CacheTest, AnyFileWithKeysAndValuesIsReadAndRewrittenWhenItGrows) {
  Twin twin{at("plain.h5"), {16, 32, 48}};
  {
    Draft draft(twin.path);
    draft.add({"k", {3, heads, channels}, Element::f32});
    draft.add({"v", {3, heads, value_channels}, Element::f32});
    RowWriter rows(draft.seal());
    const annulus::Run all{0, 3, 1};
    rows.write_rows("k", {&all, 1}, rows_of(twin.tokens, channels));
    rows.write_rows("v", {&all, 1}, rows_of(twin.tokens, value_channels));
    rows.finish();
    draft.commit();
  }
  expect_holds(twin);
  grow(twin, 2);
  expect_holds(twin);
  EXPECT_EQ(CacheFile(twin.path).part_files().size(), 1U);
}

TEST_F(CacheTest, ALinkToACacheStaysALink) {
  Twin twin{at("c.h5")};
  grow(twin, 3);
  std::filesystem::create_directory(at("links"));
  std::filesystem::create_symlink(twin.path, at("links/c.h5"));
  Twin link{at("links/c.h5"), twin.tokens};
  grow(link, 2);
  EXPECT_TRUE(std::filesystem::is_symlink(link.path));
  expect_holds(link);
  twin.tokens = link.tokens;
  expect_holds(twin);
}

TEST_F(CacheTest, CachesThatMakeNoSenseAreRefused) {
  Twin twin{at("c.h5")};
  grow(twin, 3);
  expect_error(Failure::usage, "cannot shrink, from 3 tokens to 2",
               [&] { CacheGrowth(twin.path, k_of(2), v_of(2), mark_of(twin)); });
  const auto forged = [&](const std::vector<std::string>& names, const std::vector<Index>& rows) {
    Draft draft(at("forged.h5"), true);
    draft.attribute("/", "schema", std::string("annulus-cache"));
    draft.write_small({"parts/file", {static_cast<Index>(names.size())}, Element::text}, names);
    draft.write_small({"parts/rows", {static_cast<Index>(rows.size())}, Element::i64}, rows);
    draft.seal();
    draft.commit();
    return at("forged.h5");
  };
  const std::string part = "c.h5.rows/000.h5";
  EXPECT_EQ(CacheFile(forged({part, part}, {3, 1})).shape("k"), k_of(4)) << "what is forged is taken where it fits";
  for (const char* name : {"../c.h5.rows/000.h5", "/etc/passwd", "c.h5", "", "a/b/c.h5", "c.h5.rows/.."})
    expect_error(Failure::file, "must name files in a directory beside it", [&] { CacheFile(forged({name}, {3})); });
  expect_error(Failure::file, "is missing", [&] { CacheFile(forged({"c.h5.rows/009.h5"}, {3})); });
  expect_error(Failure::file, "equally long", [&] { CacheFile(forged({part, part}, {3})); });
  expect_error(Failure::file, "equally long", [&] { CacheFile(forged({}, {})); });
  expect_error(Failure::file, "must not be negative: -1", [&] { CacheFile(forged({part}, {-1})); });
  expect_error(Failure::file, "must hold 1000000000 keys", [&] { CacheFile(forged({part}, {1'000'000'000})); });
  std::filesystem::create_directory(at("other"));
  write_example(device, at("other/q.h5"), DType::f32);
  expect_error(Failure::file, "must have a dataset k", [&] { CacheFile(forged({"other/q.h5"}, {3})); });
  put_bytes(at("other/text.h5"), "text");
  expect_error(Failure::file, "not an HDF5 file", [&] { CacheFile(forged({"other/text.h5"}, {3})); });
  {
    CacheGrowth narrow(at("narrow.h5"), {{3, heads, 1}, Element::f32}, {{3, heads, 1}, Element::f32}, {});
    narrow.commit();
  }
  expect_error(Failure::file, "must be alike", [&] { CacheFile(forged({part, "narrow.h5.rows/000.h5"}, {3, 3})); });
  std::filesystem::remove(at("c.h5.rows/000.h5"));
  expect_error(Failure::file, "a cache is the file and the directory beside it", [&] { CacheFile{twin.path}; });
}

}  // namespace
}  // namespace annulus

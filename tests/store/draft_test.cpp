#include "annulus/store/draft.hpp"

#include <sys/mount.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <random>

#include "store/files.hpp"

namespace annulus {
namespace {

using DraftTest = StoreTest;

TEST_F(DraftTest, NothingHasTheFinalNameUntilTheCommitAndNothingElseIsLeftAfterIt) {
  Draft draft(at("x.h5"));
  draft.add({"x", {5, 1}, Element::f32});
  EXPECT_FALSE(std::filesystem::exists(at("x.h5")));
  expect_error(Failure::usage, "must be sealed", [&] { draft.commit(); });
  const Layout layout = draft.seal();
  EXPECT_EQ(InputFile(layout.path).text("/", "status"), "partial");
  expect_error(Failure::usage, "before the draft is sealed", [&] { draft.add({"y", {5, 1}, Element::f32}); });
  expect_error(Failure::usage, "sealed already", [&] { draft.seal(); });
  EXPECT_FALSE(std::filesystem::exists(at("x.h5")));
  RowWriter rows(layout);
  rows.finish();
  expect_error(Failure::usage, "finish() was called twice", [&] { rows.finish(); });
  draft.commit();
  EXPECT_EQ(InputFile(at("x.h5")).text("/", "status"), "complete");
  EXPECT_EQ(files(), 1);
  expect_error(Failure::usage, "was committed", [&] { draft.attribute("/", "late", "text"); });
}

TEST_F(DraftTest, AnAbandonedDraftLeavesNothingBehind) {
  { const Draft draft(at("x.h5")); }
  {
    Draft draft(at("x.h5"));
    draft.add({"x", {5, 1}, Element::f32});
    draft.seal();
  }
  {
    Draft draft(at("x.h5"));
    draft.add({"x", {5, 1}, Element::f32});
    draft.seal();
    draft.attribute("/", "late", Index{1});
    Draft moved(std::move(draft));
  }
  EXPECT_EQ(files(), 0);
}

TEST_F(DraftTest, AnExistingFileIsReplacedOnlyOnRequest) {
  put_bytes(at("x.h5"), "precious");
  expect_error(Failure::file, "only with --overwrite", [&] { Draft draft(at("x.h5")); });
  EXPECT_EQ(bytes_in(at("x.h5")), "precious");
  EXPECT_EQ(files(), 1);
  Draft draft(at("x.h5"), true);
  draft.seal();
  EXPECT_EQ(bytes_in(at("x.h5")), "precious") << "the old file stays until the new one is whole";
  draft.commit();
  EXPECT_EQ(InputFile(at("x.h5")).text("/", "status"), "complete");
  expect_error(Failure::file, "is a directory", [&] { Draft(at(""), true); });
}

TEST_F(DraftTest, AFileThatAppearsMeanwhileIsNotReplaced) {
  {
    Draft draft(at("x.h5"));
    draft.seal();
    put_bytes(at("x.h5"), "precious");
    expect_error(Failure::file, "only with --overwrite", [&] { draft.commit(); });
  }
  EXPECT_EQ(bytes_in(at("x.h5")), "precious");
  EXPECT_EQ(files(), 1);
}

TEST_F(DraftTest, ADirectoryThatCannotBeWrittenIsNamed) {
  expect_error(Failure::file, "No such file or directory", [&] { Draft(at("no/x.h5")); });
  put_bytes(at("plain"), "");
  expect_error(Failure::file, "Not a directory", [&] { Draft(at("plain/x.h5")); });
  std::filesystem::create_directory(at("closed"));
  std::filesystem::permissions(at("closed"), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  const bool root = ::geteuid() == 0;
  if (root && ::seteuid(65534) != 0) GTEST_SKIP() << "root can write everywhere here: " << std::strerror(errno);
  const Outcome outcome = outcome_of([&] { Draft(at("closed/x.h5")); });
  ASSERT_EQ(root ? ::seteuid(0) : 0, 0);
  EXPECT_NE(outcome.sentence.find("Permission denied"), std::string::npos) << outcome.sentence;
}

TEST_F(DraftTest, PlansThatMakeNoSenseAreRefused) {
  Draft draft(at("x.h5"));
  expect_error(Failure::usage, "must not be negative", [&] { draft.add({"x", {-1, 2}, Element::f32}); });
  expect_error(Failure::usage, "nor overflow", [&] {
    draft.add({"x", {Index{1} << 40, Index{1} << 30}, Element::f32});
  });
  expect_error(Failure::usage, "2 dimensions, but 1 names", [&] { draft.add({"x", {1, 2}, Element::f32, {"token"}}); });
  expect_error(Failure::fit, "bytes on the disk, but only", [&] {
    draft.add({"x", {Index{1} << 30, Index{1} << 20}, Element::f32});
  });
  draft.add({"x", {4, 2}, Element::f32});
  expect_error(Failure::file, "cannot be made", [&] { draft.add({"x", {4, 2}, Element::f32}); });
  const std::vector<Index> three = {1, 2, 3};
  expect_error(Failure::usage, "3 values were given", [&] { draft.write_small({"y", {2}, Element::i64}, three); });
  expect_error(Failure::usage, "must be an integer type", [&] { draft.write_small({"y", {3}, Element::f32}, three); });
  RowWriter rows(draft.seal());
  const Array wrong(device, DType::f32, 4, 3, 1);
  expect_error(Failure::file, "is [4, 2] f32, but rows of 3 heads",
               [&] { rows.write_rows("x", everything(4).runs(0), wrong); });
  expect_error(Failure::usage, "without a dataset 'z'", [&] { rows.write_rows("z", everything(4).runs(0), wrong); });
  expect_error(Failure::usage, "integers cannot be written",
               [&] { rows.write_integer_rows("x", everything(3).runs(0), three, 1); });
}

TEST_F(DraftTest, AFullDiskIsFoundBeforeAnythingIsComputed) {
  std::filesystem::create_directory(at("disk"));
  if (::mount("tmpfs", at("disk").c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "a small file system cannot be mounted here: " << std::strerror(errno);
  const auto check = [&] {
    // Too large from the start; then a disk that others fill between the plan and the seal; then a disk with no byte
    // left.
    expect_error(Failure::fit, "the result needs 4259840 bytes on the disk, but only", [&] {
      Draft draft(at("disk/x.h5"));
      draft.add({"x", {1 << 20, 1}, Element::f32});
    });
    expect_error(Failure::fit, "disk", [&] {
      Draft draft(at("disk/x.h5"));
      draft.add({"x", {1 << 17, 1}, Element::f32});
      put_bytes(at("disk/other"), std::string(700'000, 'x'));
      draft.seal();
    });
    std::filesystem::remove(at("disk/other"));
    EXPECT_TRUE(std::filesystem::is_empty(at("disk")));
    put_bytes(at("disk/other"), std::string(std::size_t{1} << 20, 'x'));
    expect_error(Failure::fit, "but only 0 are free", [&] { Draft draft(at("disk/x.h5")); });
    std::filesystem::remove(at("disk/other"));
    EXPECT_TRUE(std::filesystem::is_empty(at("disk")));
    // And afterwards everything works again.
    EXPECT_FALSE(outcome_of([&] { write_example(device, at("disk/x.h5"), DType::f32); }).failed);
  };
  check();
  EXPECT_EQ(::umount2(at("disk").c_str(), MNT_DETACH), 0);
}

TEST_F(DraftTest, AKillBetweenSealAndCommitLeavesNoFileOfTheFinalName) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Draft draft(at("x.h5"));
    draft.add({"x", {100, 1}, Element::f32});
    RowWriter rows(draft.seal());
    rows.write_rows("x", everything(100).runs(0), numbered(device, DType::f32, everything(100), 0, 1, 1));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_FALSE(std::filesystem::exists(at("x.h5")));
  ASSERT_EQ(files(), 1) << "the draft, under its temporary name";
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(at("x.h5")).parent_path())) {
    const InputFile draft(entry.path());
    EXPECT_EQ(draft.text("/", "status"), "partial");
    EXPECT_EQ(draft.shape("x"), (Shape{{100, 1}, Element::f32}));
  }
}

TEST_F(DraftTest, ALayoutComesBackFromItsBytesAndOtherBytesAreRefused) {
  const Layout layout{"/a/b.h5", {{"q", {{3, 2, 1}, Element::bf16}, 4096}, {"", {{}, Element::u64}, Index{1} << 50}}};
  const auto bytes = serialise(layout);
  EXPECT_EQ(parse_layout(bytes), layout);
  EXPECT_EQ(parse_layout(serialise({})), Layout{});
  for (std::size_t length = 0; length < bytes.size(); ++length)
    expect_error(Failure::communication, "layout", [&] { parse_layout(std::span(bytes).first(length)); });
  std::mt19937 random(3);
  for (std::size_t place = 0; place < bytes.size(); ++place) {
    auto damaged = bytes;
    damaged[place] ^= static_cast<std::byte>(1U + random() % 255);
    expect_error(Failure::communication, "layout", [&] { parse_layout(damaged); });
  }
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<std::byte> noise(random() % 200);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    expect_error(Failure::communication, "layout", [&] { parse_layout(noise); });
  }
}

}  // namespace
}  // namespace annulus

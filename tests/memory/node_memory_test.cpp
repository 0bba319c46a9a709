#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "annulus/memory/shared.hpp"

namespace annulus {
namespace {

constexpr Index megabyte = Index{1} << 20;

// Bytes that the system keeps for this memory.
Index resident(const NodeMemory& memory) {
  struct stat status {};
  fstat(static_cast<int>(memory.address().file), &status);
  return Index{status.st_blocks} * 512;
}

TEST(NodeMemory, NeighboursSeeWhatIsWrittenWhereItLies) {
  NodeMemory mine(megabyte), theirs(megabyte);
  const std::array addresses{mine.address(), theirs.address()};
  mine.meet(addresses);
  theirs.meet(addresses);
  std::byte* written = mine.allocate(5000);
  const auto spot = mine.find(written);
  ASSERT_TRUE(spot);
  EXPECT_EQ(spot->owner, 0);
  const std::byte* seen = theirs.at(*spot, 5000);
  EXPECT_NE(seen, written);
  std::memset(written, 7, 5000);
  EXPECT_EQ(seen[4999], std::byte{7});
  EXPECT_TRUE(theirs.holds(seen)) << "what a neighbour has lent can be lent on";
  EXPECT_FALSE(theirs.holds(written)) << "another process does not know this one's addresses";
  mine.release(written, 5000);
}

TEST(NodeMemory, AnotherProcessReadsItAndItOutlivesThatOne) {
  NodeMemory mine(megabyte);
  std::byte* written = mine.allocate(1000);
  std::memset(written, 42, 1000);
  const pid_t child = fork();
  if (child == 0) {
    try {
      NodeMemory theirs(megabyte);
      theirs.meet(std::array{mine.address(), theirs.address()});
      _exit(theirs.at({0, 4096}, 1000)[999] == std::byte{42} ? 0 : 1);
    } catch (const Error&) {
      _exit(2);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(written[999], std::byte{42});
  mine.release(written, 1000);
}

TEST(NodeMemory, WhoCannotBeReadIsAnErrorInASentence) {
  NodeMemory mine(megabyte);
  NodeMemory::Address wrong = mine.address();
  wrong.token += 1;
  EXPECT_THROW(mine.meet(std::array{wrong}), Error);
  wrong.file = 12345;
  try {
    mine.meet(std::array{wrong});
    FAIL() << "there is no such file";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("cannot be opened"), std::string::npos) << e.what();
  }
  EXPECT_THROW(NodeMemory(Index{1} << 62), Error) << "more than the system has addresses";
}

TEST(NodeMemory, SpotsOutsideAreErrors) {
  NodeMemory mine(megabyte);
  mine.meet(std::array{mine.address()});
  EXPECT_THROW(static_cast<void>(mine.at({1, 0}, 1)), Error);
  EXPECT_THROW(static_cast<void>(mine.at({-1, 0}, 1)), Error);
  EXPECT_THROW(static_cast<void>(mine.at({0, -1}, 1)), Error);
  EXPECT_THROW(static_cast<void>(mine.at({0, megabyte - 1}, 2)), Error);
}

TEST(NodeMemory, WhatIsReleasedIsUsedAgainButNotWhileItIsLent) {
  NodeMemory mine(megabyte);
  mine.meet(std::array{mine.address()});
  std::byte* first = mine.allocate(10'000);
  mine.release(first, 10'000);
  EXPECT_EQ(mine.allocate(9'999), first);
  mine.lend();
  mine.release(first, 9'999);
  std::byte* second = mine.allocate(10'000);
  EXPECT_NE(second, first);
  mine.reclaim();
  EXPECT_EQ(mine.allocate(10'000), first);
  mine.release(first, 10'000);
  mine.release(second, 10'000);
}

TEST(NodeMemory, WhatDoesNotFitIsPlainMemory) {
  NodeMemory mine(megabyte);
  mine.meet(std::array{mine.address()});
  std::byte* large = mine.allocate(2 * megabyte);
  std::memset(large, 1, 2 * megabyte);
  EXPECT_FALSE(mine.holds(large));
  mine.release(large, 2 * megabyte);
  std::byte* nothing = mine.allocate(0);
  EXPECT_FALSE(mine.holds(nothing));
  mine.release(nothing, 0);
  for (Index length = 1000; length < megabyte;
       length *= 2) {  // all addresses have been used; those of idle pieces return
    std::byte* piece = mine.allocate(length);
    EXPECT_TRUE(mine.holds(piece)) << length;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(piece) % 64, 0U);
    mine.release(piece, length);
  }
}

TEST(NodeMemory, LargePiecesAreGivenBackToTheSystem) {
  constexpr Index large = 300 * megabyte;
  NodeMemory mine(1024 * megabyte);
  mine.meet(std::array{mine.address()});
  EXPECT_LT(resident(mine), megabyte);
  std::byte* piece = mine.allocate(large);
  if (!mine.holds(piece)) GTEST_SKIP() << "the system has no 300 MB to spare";
  EXPECT_GE(resident(mine), large) << "pages are taken when they are allocated, not when they are touched";
  mine.release(piece, large);
  EXPECT_LT(resident(mine), megabyte);
  std::byte* again = mine.allocate(large);
  EXPECT_EQ(again, piece) << "its addresses are not lost";
  again[large - 1] = std::byte{1};
  mine.release(again, large);
}

}  // namespace
}  // namespace annulus

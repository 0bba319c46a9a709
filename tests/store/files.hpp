#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/geometry/partition.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/store/draft.hpp"
#include "annulus/store/input_file.hpp"
#include "annulus/store/row_writer.hpp"

namespace annulus {

/// A directory of its own for each test, removed with everything in it.
class StoreTest : public testing::Test {
 protected:
  StoreTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "annulus-store-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw Error(Failure::file, "a temporary directory cannot be made");
    directory_ = pattern;
  }
  ~StoreTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  std::string at(const std::string& name) const { return (directory_ / name).string(); }
  /// How many files there are, drafts included.
  std::ptrdiff_t files() const {
    return std::distance(std::filesystem::directory_iterator(directory_), std::filesystem::directory_iterator());
  }
  CpuDevice device;

 private:
  std::filesystem::path directory_;
};

/// Runs the statement; the failure it ends with, and its sentence.
struct Outcome {
  bool failed = false;
  Failure failure = Failure::runtime;
  std::string sentence;
};

template <class Action>
Outcome outcome_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return {true, error.failure(), error.what()};
  }
  return {};
}

/// Expects Error(kind) whose sentence has the part in it.
template <class Action>
void expect_error(Failure kind, const std::string& part, const Action& action) {
  const Outcome outcome = outcome_of(action);
  EXPECT_TRUE(outcome.failed) << "nothing was thrown; expected: " << part;
  EXPECT_EQ(outcome.failure, kind) << outcome.sentence;
  EXPECT_NE(outcome.sentence.find(part), std::string::npos) << outcome.sentence;
}

inline std::string bytes_in(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void put_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Rows of numbers that every type holds exactly (integers below 128): a different one for most places.
inline Array numbered(Device& device, DType type, const Partition& partition, Rank rank, Index heads, Index channels) {
  Array wide(device, DType::f32, partition.rows(rank), heads, channels);
  for (Index row = 0; row < partition.rows(rank); ++row)
    for (Index i = 0; i < heads * channels; ++i)
      wide.rows().at<float>(row)[i] = static_cast<float>((partition.position(rank, row) * 31 + i * 7) % 128);
  Array array(device, type, partition.rows(rank), heads, channels);
  convert(wide, array);
  return array;
}

inline bool same_bytes(const Rows& a, const Rows& b) {
  if (!same_shape(a, b) || a.type != b.type) return false;
  for (Index t = 0; t < a.tokens; ++t)
    if (std::memcmp(a.data + t * a.pitch, b.data + t * b.pitch, static_cast<std::size_t>(a.row_bytes())) != 0)
      return false;
  return true;
}

inline const Partition& everything(Index tokens) {
  static thread_local Partition partition = Partition::contiguous(0, 1);
  partition = Partition::contiguous(tokens, 1);
  return partition;
}

/// A small whole file: q [tokens, 2, 4] of the type, with names and units.
inline void write_example(Device& device, const std::string& path, DType type, Index tokens = 20) {
  Draft draft(path);
  draft.add({"q", {tokens, 2, 4}, element_of(type), {"token", "head", "channel"}, "1", "queries"});
  const std::vector<Index> documents = {0, tokens};
  draft.write_small({"documents", {2}, Element::i64, {"document"}, "token", "where documents begin"}, documents);
  draft.attribute("/", "mask", "causal");
  RowWriter rows(draft.seal());
  const Array q = numbered(device, type, everything(tokens), 0, 2, 4);
  rows.write_rows("q", everything(tokens).runs(0), q);
  rows.finish();
  draft.commit();
}

}  // namespace annulus

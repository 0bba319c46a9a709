#include <sys/wait.h>

#include <csignal>
#include <iostream>
#include <random>

#include "annulus/store/content_hash.hpp"
#include "store/files.hpp"
#include "store/hdf5_here.hpp"

namespace annulus {
namespace {

using BadFiles = StoreTest;

/// Opens, walks and reads everything in a file of unknown contents. Returns whether q came back as it was written.
bool read_everything(const std::string& path, DType type) {
  CpuDevice device;
  const InputFile file(path);
  for (const auto& entry : file.tree()) {
    if (entry.dataset || entry.group) file.attributes(entry.path);
    if (entry.dataset && !entry.bare_scale) file.dimension_names(entry.path);
  }
  file.attributes("/");
  file.read_integers("documents");
  const Shape shape = file.shape("q");
  if (shape.dims != std::vector<Index>{20, 2, 4}) return false;
  Array rows(device, type, 20, 2, 4);
  file.read_rows("q", everything(20).runs(0), rows);
  return same_bytes(rows, numbered(device, type, everything(20), 0, 2, 4));
}

/// A dataset made by hand, with what Draft never makes.
void make_odd(const std::string& path, const std::string& name, hid_t type, std::vector<hsize_t> dims, hid_t list) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, list, H5P_DEFAULT);
  ASSERT_GE(dataset, 0);
  H5Dclose(dataset);
  H5Sclose(space);
  H5Fclose(file);
}

TEST_F(BadFiles, WhatIsMissingIsNamed) {
  write_example(device, at("x.h5"), DType::f32);
  const InputFile file(at("x.h5"));
  expect_error(Failure::file, "there is no 'k'", [&] { file.shape("k"); });
  expect_error(Failure::file, "there is no 'a/b/c'", [&] { file.shape("a/b/c"); });
  expect_error(Failure::file, "is missing", [&] { file.text("/", "nobody"); });
  expect_error(Failure::file, "must be one number", [&] { file.number("/", "mask"); });
  expect_error(Failure::file, "is not a dataset", [&] { file.shape("/"); });
  expect_error(Failure::file, "is not a group", [&] { file.names("q"); });
  expect_error(Failure::file, "No such file", [&] { InputFile(at("y.h5")); });
  expect_error(Failure::file, "not a regular file", [&] { InputFile(at("")); });
}

TEST_F(BadFiles, WhatIsNotHdf5IsRefused) {
  std::mt19937 random(1);
  for (const std::size_t bytes : {0U, 1U, 8U, 512U, 5000U}) {
    std::string noise(bytes, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    put_bytes(at("x.h5"), noise);
    expect_error(Failure::file, "not an HDF5 file", [&] { InputFile(at("x.h5")); });
  }
}

TEST_F(BadFiles, ShapesAndTypesThatDoNotFitAreNamed) {
  write_example(device, at("x.h5"), DType::bf16);
  const InputFile file(at("x.h5"));
  Array rows(device, DType::f32, 20, 4, 2);
  expect_error(Failure::file, "[20, 2, 4] bf16", [&] { file.read_rows("q", everything(20).runs(0), rows); });
  expect_error(Failure::file, "not i64", [&] { file.read_rows("documents", everything(2).runs(0), rows); });
  expect_error(Failure::file, "must hold integers", [&] { file.read_integers("q"); });
  expect_error(Failure::file, "at most 1", [&] { file.read_integers("documents", 1); });
  expect_error(Failure::file, "must hold text", [&] { file.read_texts("q"); });
  Array fitting(device, DType::f32, 20, 2, 4);
  const std::vector<annulus::Run> outside[] = {
      {{1, 20, 1}}, {{0, 20, 2}}, {{-1, 20, 1}}, {{0, 20, 0}}, {{0, Index{1} << 62, 4}}};
  for (const auto& runs : outside)
    expect_error(Failure::usage, "a run must lie within", [&] { file.read_rows("q", runs, fitting); });
  expect_error(Failure::usage, "the runs have 19 rows", [&] { file.read_rows("q", everything(19).runs(0), fitting); });
}

TEST_F(BadFiles, DataOutsideTheFileAreRefused) {
  write_example(device, at("whole.h5"), DType::f32);
  const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_external(list, at("whole.h5").c_str(), 0, 160);
  make_odd(at("external.h5"), "q", H5T_NATIVE_FLOAT, {20, 2}, list);
  expect_error(Failure::file, "keeps its data in other files", [&] { InputFile(at("external.h5")).shape("q"); });
  H5Pclose(list);

  const hid_t mapped = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t dims[] = {20, 2, 4};
  const hid_t space = H5Screate_simple(3, dims, nullptr);
  H5Pset_virtual(mapped, space, at("whole.h5").c_str(), "q", space);
  make_odd(at("virtual.h5"), "q", H5T_NATIVE_FLOAT, {20, 2, 4}, mapped);
  expect_error(Failure::file, "virtual dataset", [&] { InputFile(at("virtual.h5")).shape("q"); });
  H5Sclose(space);
  H5Pclose(mapped);

  const hid_t file = H5Fcreate(at("linked.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external(at("whole.h5").c_str(), "q", file, "q", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/q", file, "softly", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/nowhere", file, "broken", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_hard(file, "/", file, "loop", H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);
  const InputFile linked(at("linked.h5"));
  expect_error(Failure::file, "a link into another file", [&] { linked.shape("q"); });
  expect_error(Failure::file, "a link into another file", [&] { linked.shape("softly"); });
  expect_error(Failure::file, "cannot be opened", [&] { linked.shape("broken"); });
  EXPECT_EQ(linked.tree().size(), 32U * 4) << "a group inside itself ends at the depth limit";
}

TEST_F(BadFiles, ShapesThatTheFileCannotHoldAreRefused) {
  make_odd(at("x.h5"), "q", H5T_NATIVE_FLOAT, {hsize_t{1} << 40, 8, 64}, H5P_DEFAULT);
  expect_error(Failure::file, "never written", [&] { InputFile(at("x.h5")).shape("q"); });
  const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t chunk[] = {1024, 8};
  H5Pset_chunk(list, 2, chunk);
  make_odd(at("y.h5"), "q", H5T_NATIVE_FLOAT, {hsize_t{1} << 50, 8}, list);
  expect_error(Failure::file, "the file has only", [&] { InputFile(at("y.h5")).shape("q"); });
  make_odd(at("z.h5"), "q", H5T_NATIVE_FLOAT, {2048, 8}, list);
  expect_error(Failure::file, "only 0 of its 2 chunks", [&] { InputFile(at("z.h5")).shape("q"); });
  H5Pclose(list);
  make_odd(at("w.h5"), "q", H5T_NATIVE_LDOUBLE, {4}, H5P_DEFAULT);
  expect_error(Failure::file, "its type is none of them", [&] { InputFile(at("w.h5")).shape("q"); });
}

TEST_F(BadFiles, OtherByteOrdersAndCompressedChunksAreReadAsWhatTheyAre) {
  const hid_t file = H5Fcreate(at("x.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t dims[] = {20, 2, 4}, chunk[] = {7, 2, 3};
  const hid_t space = H5Screate_simple(3, dims, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(list, 3, chunk);
  H5Pset_deflate(list, 6);
  const hid_t type = H5Tcopy(H5T_IEEE_F32BE);
  H5Tset_fields(type, 15, 7, 8, 0, 7);
  H5Tset_precision(type, 16);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 127);
  const hid_t dataset = H5Dcreate2(file, "q", type, space, H5P_DEFAULT, list, H5P_DEFAULT);
  const Array values = numbered(device, DType::f32, everything(20), 0, 2, 4);
  ASSERT_GE(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.rows().data), 0);
  H5Dclose(dataset);
  H5Tclose(type);
  H5Pclose(list);
  H5Sclose(space);
  H5Fclose(file);
  const InputFile input(at("x.h5"));
  EXPECT_EQ(input.shape("q").element, Element::bf16);
  const Partition striped = Partition::striped(20, 3);
  for (const Rank rank : {0, 1, 2}) {
    Array rows(device, DType::f32, striped.rows(rank), 2, 4);
    input.read_rows("q", striped.runs(rank), rows);
    EXPECT_TRUE(same_bytes(rows, numbered(device, DType::f32, striped, rank, 2, 4)));
  }
}

TEST_F(BadFiles, ATruncatedFileIsRefusedWhereverItEnds) {
  write_example(device, at("x.h5"), DType::f32);
  const std::string whole = bytes_in(at("x.h5"));
  ASSERT_TRUE(read_everything(at("x.h5"), DType::f32));
  for (std::size_t tenth = 0; tenth < 10; ++tenth) {
    put_bytes(at("cut.h5"), whole.substr(0, whole.size() * tenth / 10));
    expect_error(Failure::file, "cut.h5", [&] { read_everything(at("cut.h5"), DType::f32); });
  }
}

// Each case in a process of its own, so that a crash inside HDF5 is counted and ends no other test. HDF5 1.10.8 does
// crash on some damage to the heap that holds text of variable length, which has no checksum (units, labels, the root's
// attributes); headers have one. And it walks on forever over an object in it that is said to have no bytes (H5HG_read; h5dump
// does, too). These are its limits, stated here; an error of another kind would be ours.
TEST_F(BadFiles, FlippedBytesEndInAnErrorOrInNumbersAndOnlySeldomInsideHdf5) {
  write_example(device, at("x.h5"), DType::bf16);
  const std::string whole = bytes_in(at("x.h5"));
  constexpr unsigned seed = 20261121;
  std::mt19937 random(seed);
  int errors = 0, reads = 0, crashes = 0, hangs = 0;
  for (int trial = 0; trial < 200; ++trial) {
    std::string bytes = whole;
    const std::size_t flips = 1 + random() % 4;
    for (std::size_t i = 0; i < flips; ++i) {
      // Half of the flips go into the first 4 KiB, where the superblock, the headers and the text are.
      const std::size_t place = random() % (i % 2 == 0 ? std::min<std::size_t>(4096, whole.size()) : whole.size());
      bytes[place] = static_cast<char>(bytes[place] ^ (1 << random() % 8));
    }
    put_bytes(at("flipped.h5"), bytes);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::alarm(5);
      const Outcome outcome = outcome_of([&] { read_everything(at("flipped.h5"), DType::bf16); });
      ::_exit(!outcome.failed ? 10 : outcome.failure == Failure::file ? 11 : 12);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    EXPECT_NE(code, 12) << "an error of another kind: seed " << seed << ", trial " << trial;
    const bool hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    (code == 10 ? reads : code == 11 ? errors : hung ? hangs : crashes) += 1;
  }
  std::cout << "of 200 damaged files " << errors << " were refused, " << reads << " were read, HDF5 crashed on "
            << crashes << " and never came back from " << hangs << "\n";
  EXPECT_GT(errors, 50);
  EXPECT_LE(hangs, 2) << "more than HDF5 1.10.8 was known for";
  EXPECT_LE(crashes, 20) << "more than HDF5 1.10.8 was known for";
}

TEST_F(BadFiles, AContentHashIsThatOfXxhsum) {
  put_bytes(at("empty"), "");
  EXPECT_EQ(content_hash(at("empty")), "99aa06d3014798d86001c324468d497f");
  put_bytes(at("large"), std::string((std::size_t{4} << 20) + 1, 'a'));
  const std::string before = content_hash(at("large"));
  put_bytes(at("large"), std::string(std::size_t{4} << 20, 'a') + 'b');
  EXPECT_NE(content_hash(at("large")), before);
  expect_error(Failure::file, "No such file", [&] { content_hash(at("missing")); });
}

}  // namespace
}  // namespace annulus

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "annulus/memory/numbers16.hpp"
#include "store/files.hpp"
#include "store/hdf5_here.hpp"

namespace annulus {
namespace {

class RoundTrip : public StoreTest {
 protected:
  /// Every rank of the partition, as a thread, writes its rows of all datasets.
  void write_all(const std::string& path, const Partition& partition) {
    Draft draft(path, true);
    const Index n = partition.tokens();
    for (const DType type : types) draft.add({std::string(name_of(type)), {n, 2, 3}, element_of(type)});
    draft.add({"lse", {n, 2}, Element::f32});
    draft.add({"topk_index", {n, 2, 2}, Element::u32});
    const Layout layout = parse_layout(serialise(draft.seal()));
    std::vector<std::thread> writers;
    for (Rank rank = 0; rank < partition.ranks(); ++rank)
      writers.emplace_back([&, rank] {
        RowWriter rows(layout);
        for (const DType type : types)
          rows.write_rows(std::string(name_of(type)), partition.runs(rank),
                          numbered(device, type, partition, rank, 2, 3));
        rows.write_rows("lse", partition.runs(rank), numbered(device, DType::f32, partition, rank, 2, 1));
        rows.write_integer_rows("topk_index", partition.runs(rank), indices(partition, rank), 4);
        rows.finish();
      });
    for (std::thread& writer : writers) writer.join();
    draft.commit();
  }

  void expect_all(const std::string& path, const Partition& partition) {
    std::vector<int> good(static_cast<std::size_t>(partition.ranks()));
    std::vector<std::thread> readers;
    for (Rank rank = 0; rank < partition.ranks(); ++rank)
      readers.emplace_back([&, rank] { good[static_cast<std::size_t>(rank)] = reads_back(path, partition, rank); });
    for (std::thread& reader : readers) reader.join();
    EXPECT_EQ(good, std::vector<int>(good.size(), 1));
  }

  static constexpr DType types[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

 private:
  static std::vector<Index> indices(const Partition& partition, Rank rank) {
    std::vector<Index> values;
    for (Index row = 0; row < partition.rows(rank); ++row)
      for (Index i = 0; i < 4; ++i) values.push_back(i == 3 ? -1 : partition.position(rank, row) * 4 + i);
    return values;
  }

  int reads_back(const std::string& path, const Partition& partition, Rank rank) {
    const InputFile file(path);
    bool good = true;
    const auto check = [&](const std::string& name, DType type, Index channels) {
      Array rows = Array::zeros(device, type, partition.rows(rank), 2, channels);
      file.read_rows(name, partition.runs(rank), rows);
      good = good && same_bytes(rows, numbered(device, type, partition, rank, 2, channels));
    };
    for (const DType type : types) check(std::string(name_of(type)), type, 3);
    check("f64", DType::bf16, 3);
    check("bf16", DType::f32, 3);
    check("lse", DType::f32, 1);
    std::vector<Index> values(static_cast<std::size_t>(partition.rows(rank) * 4));
    file.read_integer_rows("topk_index", partition.runs(rank), values);
    return good && values == indices(partition, rank) ? 1 : 0;
  }
};

TEST_F(RoundTrip, WhatAnyNumberOfWritersWriteAnyNumberOfReadersRead) {
  const Mask full = Mask::parse("full", {41, 41, {}});
  for (const char* partition : {"contiguous", "zigzag", "striped"})
    for (const int writers : {1, 2, 3, 5, 7}) {
      write_all(at("x.h5"), make_partition(partition, 41, writers, full));
      for (const char* other : {"contiguous", "zigzag", "striped"})
        for (const int readers : {1, 2, 3, 5, 7}) {
          SCOPED_TRACE(testing::Message() << partition << " " << writers << " -> " << other << " " << readers);
          expect_all(at("x.h5"), make_partition(other, 41, readers, full));
        }
    }
}

TEST_F(RoundTrip, EmptyShardsAndNoTokensAtAllAreFiles) {
  for (const Index tokens : {0, 1, 2}) {
    write_all(at("x.h5"), Partition::zigzag(tokens, 5));
    expect_all(at("x.h5"), Partition::striped(tokens, 3));
    EXPECT_EQ(InputFile(at("x.h5")).shape("bf16"), (Shape{{tokens, 2, 3}, Element::bf16}));
  }
}

TEST_F(RoundTrip, StridedWritesStoreTheSameRowsAsContiguousOnes) {
  for (const char* name : {"a.h5", "b.h5"}) {
    const Partition partition = name[0] == 'a' ? Partition::contiguous(64, 4) : Partition::striped(64, 4);
    Draft draft(at(name));
    draft.attribute("/", "created", "then");
    draft.add({"x", {64, 3, 5}, Element::bf16});
    const Layout layout = draft.seal();
    for (Rank rank = 3; rank >= 0; --rank) {
      RowWriter rows(layout);
      rows.write_rows("x", partition.runs(rank), numbered(device, DType::f64, partition, rank, 3, 5));
      rows.finish();
    }
    draft.commit();
  }
  Array a(device, DType::bf16, 64, 3, 5), b(device, DType::bf16, 64, 3, 5);
  InputFile(at("a.h5")).read_rows("x", everything(64).runs(0), a);
  InputFile(at("b.h5")).read_rows("x", everything(64).runs(0), b);
  EXPECT_TRUE(same_bytes(a, b));
}

TEST_F(RoundTrip, RowsWithGapsBetweenThemAreReadAndWrittenAround) {
  const Partition partition = Partition::striped(23, 2);
  Draft draft(at("x.h5"));
  draft.add({"x", {23, 2, 3}, Element::f16});
  const Layout layout = draft.seal();
  for (const Rank rank : {0, 1}) {
    Array wide = Array::zeros(device, DType::f16, partition.rows(rank), 5, 3);
    copy_rows(numbered(device, DType::f16, partition, rank, 2, 3), wide.rows().take_heads(1, 3));
    RowWriter(layout).write_rows("x", partition.runs(rank), wide.rows().take_heads(1, 3));
  }
  draft.commit();
  Array wide = Array::zeros(device, DType::f32, 23, 4, 3);
  InputFile(at("x.h5")).read_rows("x", everything(23).runs(0), wide.rows().take_heads(2, 4));
  EXPECT_TRUE(same_bytes(wide.rows().take_heads(2, 4), numbered(device, DType::f32, everything(23), 0, 2, 3)));
  EXPECT_TRUE(same_bytes(wide.rows().take_heads(0, 2), Array::zeros(device, DType::f32, 23, 2, 3)));
}

TEST_F(RoundTrip, SixteenBitsAreRoundedToNearestEvenAndNotANumberStaysAsItWas) {
  std::mt19937 random(7);
  std::vector<std::uint32_t> patterns = {0x3f808000U, 0x3f818000U, 0x3f808001U, 0x7f7fffffU, 0x7f800000U, 0xff800000U,
                                         0x7fc00001U, 0x7f800001U, 0x00000001U, 0x80000000U, 0x477ff000U, 0x33000001U};
  while (patterns.size() < 4096) patterns.push_back(static_cast<std::uint32_t>(random()));
  const auto n = static_cast<Index>(patterns.size());
  Draft draft(at("x.h5"));
  for (const Element element : {Element::f32, Element::bf16, Element::f16})
    draft.add({std::string(name_of(element)), {n, 1}, element});
  const Layout layout = draft.seal();
  RowWriter rows(layout);
  for (const auto& dataset : layout.datasets)
    rows.write_rows(dataset.name, everything(n).runs(0), dense_rows(patterns.data(), DType::f32, n, 1, 1));
  rows.finish();
  draft.commit();
  const InputFile file(at("x.h5"));
  Array same(device, DType::f32, n, 1, 1), bf16(device, DType::bf16, n, 1, 1), f16(device, DType::f16, n, 1, 1);
  file.read_rows("f32", everything(n).runs(0), same);
  file.read_rows("bf16", everything(n).runs(0), bf16);
  file.read_rows("f16", everything(n).runs(0), f16);
  EXPECT_EQ(std::memcmp(same.rows().data, patterns.data(), patterns.size() * 4), 0) << "f32 is stored bit by bit";
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    const auto value = std::bit_cast<float>(patterns[i]);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(from_bf16(bf16.elements<std::uint16_t>()[i])));
      EXPECT_TRUE(std::isnan(from_f16(f16.elements<std::uint16_t>()[i])));
    } else {
      EXPECT_EQ(bf16.elements<std::uint16_t>()[i], to_bf16(value)) << value;
      EXPECT_EQ(f16.elements<std::uint16_t>()[i], to_f16(value)) << value;
    }
  }
  EXPECT_EQ(bf16.elements<std::uint16_t>()[0], 0x3f80) << "a tie goes to the even neighbour: down";
  EXPECT_EQ(bf16.elements<std::uint16_t>()[1], 0x3f82) << "a tie goes to the even neighbour: up";
}

TEST_F(RoundTrip, IntegersOfEveryWidthKeepTheirValuesAndUnusedPlacesAreMarked) {
  const std::vector<Index> values = {0, 1, 127, -1, 5, 6};
  Draft draft(at("x.h5"));
  for (const Element element :
       {Element::i8, Element::i16, Element::i32, Element::i64, Element::u8, Element::u16, Element::u32, Element::u64})
    draft.add({std::string(name_of(element)), {3, 2}, element});
  const Layout layout = draft.seal();
  RowWriter rows(layout);
  for (const auto& dataset : layout.datasets) rows.write_integer_rows(dataset.name, everything(3).runs(0), values, 2);
  const std::vector<Index> large = {256, 0, 0, 0, 0, 0};
  expect_error(Failure::usage, "256 does not fit u8",
               [&] { rows.write_integer_rows("u8", everything(3).runs(0), large, 2); });
  rows.write_integer_rows("u8", everything(3).runs(0), values, 2);
  rows.finish();
  draft.commit();
  const InputFile file(at("x.h5"));
  for (const auto& dataset : layout.datasets) {
    std::vector<Index> back(6);
    file.read_integer_rows(dataset.name, everything(3).runs(0), back);
    EXPECT_EQ(back, values) << dataset.name;
  }
  EXPECT_EQ(file.read_integers("u32"), (std::vector<Index>{0, 1, 127, 4294967295, 5, 6}));
}

TEST_F(RoundTrip, RowsThatLieHeadsFirstOrInABatchAreReadFromTheirPlaces) {
  constexpr Index batch = 3, heads = 2, n = 40, channels = 5;
  std::vector<float> numbers(static_cast<std::size_t>(batch * heads * n * channels));
  std::ranges::generate(numbers, [next = 0.0F]() mutable { return next++; });  // each says where it lies
  Draft draft(at("x.h5"));
  draft.write_small({"heads", {batch, heads, n, channels}, Element::f64}, numbers);
  draft.write_small({"tokens", {batch, n, heads, channels}, Element::f32}, numbers);
  draft.write_small({"alone", {heads * batch, n, channels}, Element::f32}, numbers);
  draft.seal();
  draft.commit();
  const InputFile file(at("x.h5"));
  const std::vector<annulus::Run> runs = {{7, 4, 9}, {0, 3, 1}};
  const Array rows(device, DType::f32, 7, heads, channels), all(device, DType::f32, 7, heads * batch, channels);
  const auto expect_rows = [&](const Rows& found, Index head_step, Index token_step, Index first) {
    Index row = 0;
    for (const annulus::Run& run : runs)
      for (Index i = 0; i < run.count; ++i, ++row)
        for (Index h = 0; h < found.heads; ++h)
          for (Index c = 0; c < channels; ++c)
            ASSERT_EQ(found.at<float>(row, h)[c], first + h * head_step + run.at(i) * token_step + c)
                << row << " " << h;
  };
  for (Index b = 0; b < batch; ++b) {
    file.read_rows("heads", runs, rows, {true, b});
    expect_rows(rows, n * channels, channels, b * heads * n * channels);
    file.read_rows("tokens", runs, rows, {false, b});
    expect_rows(rows, channels, heads * channels, b * heads * n * channels);
  }
  file.read_rows("alone", runs, all, {true, -1});
  expect_rows(all, n * channels, channels, 0);
  EXPECT_EQ(file.shape("heads", {true, 1}), (Shape{{n, heads, channels}, Element::f64}));
  expect_error(Failure::file, "must have a sequence 3 in its batch", [&] { file.shape("heads", {true, 3}); });
  expect_error(Failure::file, "must be [batch, tokens, heads, channels]", [&] { file.shape("alone", {false, 0}); });
  expect_error(Failure::file, "must be [heads, tokens, channels]",
               [&] { file.read_rows("heads", runs, rows, {true}); });
}

TEST_F(RoundTrip, SmallDatasetsAndAttributesComeBackAlsoThoseWrittenLast) {
  Draft draft(at("x.h5"));
  draft.add({"deep/er/x", {4, 2}, Element::f32, {"token", "head"}, "nat", "a name"});
  const std::vector<std::string> texts = {"first", "", "dritte Zeile: grün"};
  draft.write_small({"passages", {3}, Element::text, {"passage"}}, texts);
  const std::vector<std::pair<std::string, Value>> root = {{"schema", "annulus attention"},
                                                           {"ranks", Index{4}},
                                                           {"scale", 0.125},
                                                           {"devices", texts},
                                                           {"grid", std::vector<Index>{2, 1, 2}},
                                                           {"nothing", std::vector<Index>{}},
                                                           {"speeds", std::vector<double>{1, 0.5}},
                                                           {"configuration", std::string(200'000, 'c')}};
  draft.attributes(root);
  const Layout layout = draft.seal();
  RowWriter rows(layout);
  rows.write_rows("deep/er/x", everything(4).runs(0), numbered(device, DType::f32, everything(4), 0, 2, 1));
  rows.finish();
  const std::vector<float> mass = {1, 2, 3, 4, 5, 6};
  draft.write_small({"deep/block_mass", {1, 2, 3}, Element::f32, {"head", "query_block", "key_block"}}, mass);
  draft.attribute("deep/er/x", "note", "late");
  draft.commit();

  const InputFile file(at("x.h5"));
  for (const auto& [name, value] : root) EXPECT_EQ(file.attribute("/", name), value) << name;
  EXPECT_EQ(file.text("/", "status"), "complete");
  EXPECT_EQ(file.number("/", "ranks"), 4);
  EXPECT_EQ(file.number("/", "scale"), 0.125);
  EXPECT_EQ(file.attribute("/", "missing"), std::nullopt);
  EXPECT_EQ(file.attributes("/").size(), root.size() + 2);
  EXPECT_EQ(file.read_texts("passages"), texts);
  EXPECT_EQ(file.read_numbers("deep/block_mass"), (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(file.dimension_names("deep/er/x"), (std::vector<std::string>{"token", "head"}));
  EXPECT_EQ(file.text("deep/er/x", "units"), "nat");
  EXPECT_EQ(file.text("deep/er/x", "note"), "late");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"deep", "passage", "passages"}));
  const auto tree = file.tree();
  EXPECT_EQ(std::ranges::count_if(tree, [](const auto& entry) { return !entry.bare_scale; }), 5);
  EXPECT_TRUE(file.has("deep/er"));
  EXPECT_FALSE(file.has("deep/x/er"));
  Array back(device, DType::f32, 4, 2, 1);
  file.read_rows("deep/er/x", everything(4).runs(0), back);
  EXPECT_TRUE(same_bytes(back, numbered(device, DType::f32, everything(4), 0, 2, 1)));
}

// A filter that changes nothing and counts how often it undoes that.
int times_undone = 0;
std::size_t counting(unsigned flags, std::size_t, const unsigned*, std::size_t bytes, std::size_t*, void**) {
  if ((flags & H5Z_FLAG_REVERSE) != 0) ++times_undone;
  return bytes;
}

TEST_F(RoundTrip, AChunkIsUncompressedOnceForAllRuns) {
  constexpr H5Z_filter_t number = 300;
  const H5Z_class2_t filter{H5Z_CLASS_T_VERS, number, 1, 1, "counting", nullptr, nullptr, counting};
  ASSERT_GE(H5Zregister(&filter), 0);
  const hsize_t dims[3] = {70'000, 2, 4};  // 2.1 MiB: more than HDF5 keeps unless it is told to
  const hid_t file = H5Fcreate(at("c.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
              space = H5Screate_simple(3, dims, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(list, 3, dims);
  H5Pset_filter(list, number, H5Z_FLAG_MANDATORY, 0, nullptr);
  const hid_t dataset = H5Dcreate2(file, "k", H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
  const std::vector<float> values(70'000 * 8, 1.5F);
  ASSERT_GE(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Pclose(list), H5Sclose(space), H5Dclose(dataset), H5Fclose(file);
  times_undone = 0;
  std::vector<annulus::Run> runs;
  for (Index first = 0; first < 20; ++first) runs.push_back({first * 1000, 3, 7});
  const Array rows(device, DType::f32, 60, 2, 4);
  InputFile(at("c.h5")).read_rows("k", runs, rows);
  EXPECT_EQ(times_undone, 1);
  EXPECT_EQ(rows.elements<float>()[479], 1.5F);
}

}  // namespace
}  // namespace annulus

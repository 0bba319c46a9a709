#include <atomic>
#include <random>

#include "store/files.hpp"
#include "store/hdf5_here.hpp"

namespace annulus {
namespace {

/// Datasets whose rows lie in the file as in memory are read without HDF5, by several threads and in pieces of 1 MiB; the
/// others through it. Nobody can tell.
class PlainRows : public StoreTest {
 protected:
  struct Dataset {
    DType type = DType::f32;
    Index tokens = 0, heads = 0, channels = 0;
    bool big_endian = false, chunked = false;
    hsize_t user_block = 0;  ///< bytes before the HDF5 file
  };

  Array values(const Dataset& d, DType type) {
    return numbered(device, type, everything(d.tokens), 0, d.heads, d.channels);
  }

  std::string written(const Dataset& d) {
    const hid_t making = H5Pcreate(H5P_FILE_CREATE), list = H5Pcreate(H5P_DATASET_CREATE), type = type_of(d);
    H5Pset_userblock(making, d.user_block);
    const hid_t file = H5Fcreate(at("x.h5").c_str(), H5F_ACC_TRUNC, making, H5P_DEFAULT);
    const hsize_t dims[3] = {static_cast<hsize_t>(d.tokens), static_cast<hsize_t>(d.heads),
                             static_cast<hsize_t>(d.channels)};
    const hsize_t chunk[3] = {1 + dims[0] / 3, dims[1], dims[2]};
    if (d.chunked) H5Pset_chunk(list, 3, chunk);
    const hid_t space = H5Screate_simple(3, dims, nullptr),
                dataset = H5Dcreate2(file, "x", type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    const Array rows = values(d, DType::f64);
    EXPECT_GE(H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.rows().data), 0);
    H5Dclose(dataset), H5Sclose(space), H5Fclose(file), H5Tclose(type), H5Pclose(list), H5Pclose(making);
    return at("x.h5");
  }

 private:
  static hid_t type_of(const Dataset& d) {
    const hid_t type = H5Tcopy(d.type == DType::f64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE);
    if (d.type == DType::bf16 || d.type == DType::f16) {
      const bool half = d.type == DType::f16;
      H5Tset_fields(type, 15, half ? 10 : 7, half ? 5 : 8, 0, half ? 10 : 7);
      H5Tset_precision(type, 16);
      H5Tset_size(type, 2);
      H5Tset_ebias(type, half ? 15 : 127);
    }
    H5Tset_order(type, d.big_endian ? H5T_ORDER_BE : H5T_ORDER_LE);
    return type;
  }
};

/// Counts how often each row was shown, and what was shown that is none.
struct Seen {
  Rows whole;
  std::vector<std::atomic<int>> times = std::vector<std::atomic<int>>(static_cast<std::size_t>(whole.tokens));
  std::atomic<int> odd = 0;

  void look(const Rows& part) {
    if (!same_shape(part.slice(0, 1), whole.slice(0, 1)) || part.type != whole.type || part.pitch != whole.pitch) ++odd;
    const Index first = (part.data - whole.data) / whole.pitch;
    for (Index row = 0; row < part.tokens; ++row) ++times[static_cast<std::size_t>(first + row)];
  }
  bool each_once() const {
    return odd == 0 && std::ranges::all_of(times, [](const std::atomic<int>& count) { return count == 1; });
  }
};

TEST_F(PlainRows, AreReadAsAllOthersAreAndAreShownOnce) {
  std::mt19937 random(11);
  const auto any = [&random](auto... choices) {
    const std::array list{choices...};
    return list[std::uniform_int_distribution<std::size_t>(0, list.size() - 1)(random)];
  };
  for (int round = 0; round < 60; ++round) {
    // Rows of 48 bytes to 4 KiB: some go to their places at once.
    const Dataset d{any(DType::f32, DType::bf16, DType::f16, DType::f64),
                    any(1, 700, 2100),
                    any(2, 8),
                    any(12, 64),
                    any(false, false, true),
                    any(false, false, true),
                    any(hsize_t{0}, hsize_t{1024})};
    const InputFile file(written(d));
    const DType type = any(d.type, d.type, DType::f32, DType::bf16, DType::f16, DType::f64);
    const Array expected = values(d, type);
    const Index gap = any(0, 0, 3), cut = d.tokens / any(1, 2, 3),
                stride = any(1, 1, 3, 70);
    std::vector<annulus::Run> runs{{cut, d.tokens - cut, 1}, {0, (cut + stride - 1) / stride, stride}};
    const Index rows = runs[0].count + runs[1].count;
    Array wide = Array::zeros(device, type, rows, d.heads + gap, d.channels);
    const Rows into = wide.rows().take_heads(0, d.heads);
    Seen seen{into};
    file.read_rows("x", runs, into, {}, {any(1, 2, 5), [&](const Rows& part) { seen.look(part); }});
    SCOPED_TRACE(testing::Message() << "round " << round << ": " << d.tokens << " x " << d.heads << " x " << d.channels
                                    << " " << name_of(d.type) << " as " << name_of(type) << ", gap " << gap
                                    << ", stride " << stride);
    EXPECT_TRUE(seen.each_once());
    Index row = 0;
    bool same = true;
    for (const annulus::Run& run : runs)
      for (Index i = 0; i < run.count; ++i, ++row)
        same = same && same_bytes(into.slice(row, row + 1), expected.rows().slice(run.at(i), run.at(i) + 1));
    EXPECT_TRUE(same);
    const Rows between = wide.rows().take_heads(d.heads, d.heads + gap);
    EXPECT_TRUE(gap == 0 || same_bytes(between, Array::zeros(device, type, rows, gap, d.channels)));
  }
}

TEST_F(PlainRows, OfAllWhoFindSomethingTheFirstRowsAreHeard) {
  for (const bool chunked : {false, true}) {
    const Dataset d{.tokens = 9000, .heads = 8, .channels = 32, .chunked = chunked};
    const InputFile file(written(d));
    const Array rows(device, DType::f32, d.tokens, d.heads, d.channels);
    for (const int threads : {1, 2, 5})
      for (const Index bad : {0, 1500, 4711, 8999}) {
        const auto look = [&](const Rows& part) {
          const Index first = (part.data - rows.rows().data) / part.pitch, row = std::max(first, bad);
          require<Failure::file>(row >= first + part.tokens, "row ", row);
        };
        expect_error(Failure::file, sentence("row ", bad), [&] {
          file.read_rows("x", everything(d.tokens).runs(0), rows, {}, {threads, look});
        });
      }
  }
}

TEST_F(PlainRows, WhoeverCutsTheFileMeanwhileIsFound) {
  const Dataset d{.tokens = 9000, .heads = 8, .channels = 32};
  const InputFile file(written(d));
  const auto bytes = static_cast<Index>(std::filesystem::file_size(at("x.h5")));
  for (const Index left : {bytes - 1, bytes / 2, Index{3000}}) {
    std::filesystem::resize_file(at("x.h5"), static_cast<std::uintmax_t>(left));
    for (const DType type : {DType::f32, DType::bf16})
      for (const Index gap : {0, 1}) {
        const Array rows(device, type, d.tokens, d.heads + gap, d.channels);
        expect_error(Failure::file, sentence("from byte ", left, ", but the file has only ", left), [&] {
          file.read_rows("x", everything(d.tokens).runs(0), rows.rows().take_heads(0, d.heads), {}, {3});
        });
      }
  }
}

TEST_F(PlainRows, WhoeverReplacesTheFileDoesNotChangeWhatWasOpened) {
  const Dataset d{.tokens = 900, .heads = 2, .channels = 8};
  const InputFile file(written(d));
  std::filesystem::rename(at("x.h5"), at("y.h5"));
  put_bytes(at("x.h5"), "another");
  std::filesystem::remove(at("y.h5"));
  const Array rows(device, DType::f32, d.tokens, d.heads, d.channels);
  file.read_rows("x", everything(d.tokens).runs(0), rows);
  EXPECT_TRUE(same_bytes(rows, values(d, DType::f32)));
}

}  // namespace
}  // namespace annulus

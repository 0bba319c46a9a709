#include <cstdio>
#include <cstdlib>

#include "store/files.hpp"

namespace annulus {
namespace {

using OtherReaders = StoreTest;

/// A Python that has h5py and numpy, or nothing.
std::string python_with_h5py() {
  for (const char* python : {"/usr/bin/python3", "python3"})
    if (std::system((std::string(python) + " -c 'import h5py, numpy' >/dev/null 2>&1").c_str()) == 0) return python;
  return "";
}

TEST_F(OtherReaders, H5pyShowsNumbersNamesUnitsAndAttributes) {
  const std::string python = python_with_h5py();
  if (python.empty()) GTEST_SKIP() << "no python3 with h5py was found";
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f64})
    write_example(device, at(std::string(name_of(type)) + ".h5"), type);
  put_bytes(at("check.py"), R"(import sys, h5py, numpy
expected = (numpy.arange(20)[:, None] * 31 + numpy.arange(8)[None] * 7) % 128
for name, kind in ('f32', 'f4'), ('bf16', 'f4'), ('f16', 'f2'), ('f64', 'f8'):
    with h5py.File(sys.argv[1] + '/' + name + '.h5', 'r') as file:
        q = file['q']
        assert q.dtype == numpy.dtype(kind), (name, q.dtype)
        assert (q[...] == expected.reshape(20, 2, 4)).all(), name
        assert [dim.label for dim in q.dims] == ['token', 'head', 'channel'], name
        assert q.attrs['units'] == '1' and q.attrs['long_name'] == 'queries', name
        assert file.attrs['status'] == 'complete' and file.attrs['mask'] == 'causal', name
        assert file['documents'][...].tolist() == [0, 20] and file['documents'].dtype == 'i8', name
        assert file.attrs['created'].endswith('Z'), name
)");
  EXPECT_EQ(std::system((python + " " + at("check.py") + " " + at("") + " 1>&2").c_str()), 0);
}

TEST_F(OtherReaders, WhatH5pyWritesIsRead) {
  const std::string python = python_with_h5py();
  if (python.empty()) GTEST_SKIP() << "no python3 with h5py was found";
  put_bytes(at("make.py"), R"(import sys, h5py, numpy
values = ((numpy.arange(20)[:, None] * 31 + numpy.arange(8)[None] * 7) % 128).reshape(20, 2, 4)
with h5py.File(sys.argv[1], 'w') as file:
    for kind in 'f2', 'f4', 'f8', '>f2', '>f4':
        file[kind] = values.astype(kind)
    file.create_dataset('zipped', data=values.astype('f4'), chunks=(7, 1, 3), compression='gzip', shuffle=True)
    file['integers'] = numpy.array([0, 7, 20], '>i4')
    file['bool'] = numpy.array([True])
    file['words'] = ['a', 'bc']
    file.attrs['fixed'] = numpy.bytes_('text')
    file.attrs['numbers'] = [1.5, 2.5]
    file.attrs['nothing'] = h5py.Empty('f4')
    file['f4'].dims[0].label = 'token'
    file['scale'] = numpy.arange(20.)
    file['scale'].make_scale('token')
    file['f4'].dims[0].attach_scale(file['scale'])
)");
  ASSERT_EQ(std::system((python + " " + at("make.py") + " " + at("x.h5") + " 1>&2").c_str()), 0);
  const InputFile file(at("x.h5"));
  for (const char* name : {"f2", "f4", "f8", ">f2", ">f4", "zipped"}) {
    Array rows(device, DType::f32, 20, 2, 4);
    file.read_rows(name, everything(20).runs(0), rows);
    EXPECT_TRUE(same_bytes(rows, numbered(device, DType::f32, everything(20), 0, 2, 4))) << name;
  }
  EXPECT_EQ(file.read_integers("integers"), (std::vector<Index>{0, 7, 20}));
  EXPECT_EQ(file.read_texts("words"), (std::vector<std::string>{"a", "bc"}));
  expect_error(Failure::file, "its type is none of them", [&] { file.shape("bool"); });
  EXPECT_EQ(file.text("/", "fixed"), "text");
  EXPECT_EQ(file.attribute("/", "numbers"), Value(std::vector<double>{1.5, 2.5}));
  EXPECT_EQ(file.attributes("/").size(), 3U);
  EXPECT_EQ(file.dimension_names("f4"), (std::vector<std::string>{"token", "", ""}));
  EXPECT_TRUE(file.attributes("f4").size() == 1) << "labels, but not the references to scales";
}

}  // namespace
}  // namespace annulus

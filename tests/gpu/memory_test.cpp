#include <cuda_runtime.h>

#include <cmath>
#include <map>

#include "gpu/gpu.hpp"
#include "kernel/support.hpp"

namespace annulus::test {
namespace {

constexpr DType types[]{DType::f32, DType::bf16, DType::f16, DType::f64};

// A copy of host rows on the GPU, dense.
Array uploaded(Device& device, const Rows& host) {
  Array there(device, host.type, host.tokens, host.heads, host.channels);
  device.copy_rows(host, there);
  return there;
}

TEST_F(OnGpu, RowsComeBackAsTheyWentWithAnyPitch) {
  std::mt19937 random(1);
  for (const DType type : types) {
    Sheet from(type, 37, 3, 5, 7), to(type, 37, 3, 5, 2), expected = to;
    from.fill_normal(random);
    expected.each([&](Index i, Index h, Index c) { return from.at(i, h, c); });
    device->copy_rows(uploaded(*device, from), to);
    EXPECT_TRUE(to.same_bits(expected)) << name_of(type);  // gaps untouched
  }
}

TEST_F(OnGpu, ConversionsRoundAsTheCpuDoes) {
  for (const DType a : types)
    for (const DType b : types) {
      Sheet from(a, 1000, 1, 9), exact(b, 1000, 1, 9), got = exact;
      std::mt19937 random(2);
      std::normal_distribution<double> normal;
      from.each([&](Index i, Index, Index) { return std::ldexp(normal(random), static_cast<int>(i % 60) - 30); });
      convert(from, exact);
      const Array there(*device, b, 1000, 1, 9);
      device->convert(uploaded(*device, from), there);
      device->copy_rows(there, got);
      EXPECT_TRUE(got.same_bits(exact)) << name_of(a) << " to " << name_of(b);
    }
}

TEST_F(OnGpu, RowsAddAndClear) {
  std::mt19937 random(3);
  Sheet a(DType::f32, 300, 2, 40), b = a, sum = a;
  a.fill_normal(random);
  b.fill_normal(random);
  sum.each([&](Index i, Index h, Index c) { return a.at(i, h, c) + b.at(i, h, c); });
  const Array there_a = uploaded(*device, a), there_b = uploaded(*device, b);
  device->add(there_a, there_b);
  device->clear(there_a.rows().slice(10, 20));
  device->copy_rows(there_b, b);
  device->copy_rows(there_a, a);
  EXPECT_TRUE(b.same_bits(sum));
  EXPECT_EQ(a.at(10, 1, 3), 0);
  EXPECT_EQ(a.at(19, 0, 39), 0);
  EXPECT_NE(a.at(20, 1, 3), 0);
}

TEST_F(OnGpu, FreedMemoryIsTakenAgain) {
  const std::byte* first = nullptr;
  {
    const Array array = Array::zeros(*device, DType::f32, 100, 1, 1);
    first = array.rows().data;
  }
  EXPECT_EQ(Array::zeros(*device, DType::f32, 100, 1, 1).rows().data, first);
}

// Memory of a library's own, which it wants to know by its pieces: small arrays lie in such pieces, too.
std::map<std::byte*, Index> given;
TEST_F(OnGpu, SmallPiecesAreCutFromLargeOnesOfForeignMemory) {
  const CudaMemory foreign{[](Index bytes) {
                             void* memory = nullptr;
                             if (cudaMalloc(&memory, static_cast<std::size_t>(bytes)) != cudaSuccess)
                               return static_cast<std::byte*>(nullptr);
                             given[static_cast<std::byte*>(memory)] = bytes;
                             return static_cast<std::byte*>(memory);
                           },
                           [](std::byte* memory) noexcept { cudaFree(memory), given.erase(memory); }};
  {
    const auto other = make_cuda_device(0, foreign);
    std::vector<Array> arrays;
    for (const Index tokens : {1, 100, 3000, 100'000, 200'000, 1'000'000, 5, 255'999})
      arrays.push_back(Array::zeros(*other, DType::f32, tokens, 1, 1));
    EXPECT_LT(given.size(), arrays.size());
    std::map<std::byte*, Index> taken;
    for (const Array& array : arrays) {
      const auto piece = std::prev(given.upper_bound(array.rows().data));
      EXPECT_LE(array.rows().data + array.rows().bytes(), piece->first + piece->second);
      const auto after = taken.upper_bound(array.rows().data);
      if (after != taken.begin()) {
        EXPECT_LE(std::prev(after)->first + std::prev(after)->second, array.rows().data);
      }
      taken[array.rows().data] = array.rows().bytes();
    }
  }
  EXPECT_TRUE(given.empty());
}

TEST_F(OnGpu, WhatDoesNotFitIsSaid) {
  try {
    device->allocate(Index{1} << 50);
    FAIL() << "a petabyte was given";
  } catch (const Error& e) {
    EXPECT_EQ(e.failure(), Failure::fit);
  }
  const Array after = Array::zeros(*device, DType::f32, 10, 1, 1);  // and the GPU still works
  device->finish();
}

TEST(Gpus, AreListedOrTheReasonIsSaid) {
  const std::string reason = cuda_refusal();
  EXPECT_EQ(cuda_gpus().empty(), !reason.empty());
  EXPECT_NE(cuda_versions().find("runtime"), std::string::npos);
  if (!reason.empty()) {
    EXPECT_THROW(make_cuda_device(0), Error);
  } else {
    EXPECT_THROW(make_cuda_device(static_cast<int>(cuda_gpus().size())), Error);
  }
}

}  // namespace
}  // namespace annulus::test

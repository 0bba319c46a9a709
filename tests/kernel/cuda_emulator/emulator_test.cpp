#include "kernel/cuda_emulator/cuda.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernel/cuda/primitives.cuh"

// The emulator judges kernels; these judge the emulator.

namespace annulus::test {
namespace {

using namespace cuda;
using emulator::Failure;
using emulator::launch;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int size = 64;  // c[64, 64] = a[64, 64] b[64, 64], one warp per 16 rows
constexpr std::uint32_t row_bytes = size * 2;

std::uint32_t place(int row, int column) {  // as the kernels do: 16-byte chunks, permuted within 128 bytes
  return static_cast<std::uint32_t>(row) * row_bytes + static_cast<std::uint32_t>((column / 8) ^ (row % 8)) * 16;
}

enum class Fault { none, no_wait, no_barrier, no_commit };

template <DType type, bool b_transposed>
void product(const std::uint16_t* a, const std::uint16_t* b, float* c, Fault fault) {
  const std::uint32_t a_at = shared_memory(), b_at = a_at + size * row_bytes;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, first = thread / 32 * 16;
  for (int chunk = thread; chunk < size * size / 8; chunk += 128) {
    const int row = chunk / 8, column = chunk % 8 * 8;
    copy_async(a_at + place(row, column), a + row * size + column, 16);
    copy_async(b_at + place(row, column), b + row * size + column, 16);
  }
  if (fault != Fault::no_commit) copy_async_commit();
  if (fault != Fault::no_wait) copy_async_wait<0>();
  if (fault != Fault::no_barrier) __syncthreads();
  float d[size / 8][4] = {};
  for (int k = 0; k < size; k += 16) {
    std::uint32_t left[4];
    load_matrices<false>(left, a_at + place(first + lane % 16, k + lane / 16 * 8));
    for (int n = 0; n < size; n += 16) {
      std::uint32_t right[4];
      if constexpr (b_transposed) {  // b[n, k]
        load_matrices<false>(right, b_at + place(n + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8));
      } else {  // b[k, n]
        load_matrices<true>(right, b_at + place(k + lane % 16, n + lane / 16 * 8));
      }
      multiply<type>(d[n / 8], left, right[0], right[1]);
      multiply<type>(d[n / 8 + 1], left, right[2], right[3]);
    }
  }
  for (int n = 0; n < size / 8; ++n)
    for (int e = 0; e < 4; ++e) c[(first + lane / 4 + e / 2 * 8) * size + n * 8 + lane % 4 * 2 + e % 2] = d[n][e];
}

template <DType type, bool b_transposed>
void check_product(Fault fault, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  alignas(16) std::uint16_t a[size * size], b[size * size];
  for (auto& x : a) x = type == DType::bf16 ? to_bf16(normal(random)) : to_f16(normal(random));
  for (auto& x : b) x = type == DType::bf16 ? to_bf16(normal(random)) : to_f16(normal(random));
  std::vector<float> c(size * size);
  launch({.grid = {}, .block = {128}, .shared_bytes = 2 * size * row_bytes, .seed = seed},
         [&] { product<type, b_transposed>(a, b, c.data(), fault); });
  for (int i = 0; i < size; ++i)
    for (int j = 0; j < size; ++j) {
      double sum = 0;
      for (int k = 0; k < size; ++k)
        sum += static_cast<double>(number16<type>(a[i * size + k])) *
               static_cast<double>(number16<type>(b[b_transposed ? j * size + k : k * size + j]));
      ASSERT_NEAR(c[static_cast<std::size_t>(i * size + j)], sum, 1e-4) << i << ", " << j;
    }
}

TEST(CudaEmulator, ProductsByMatrixInstructionsAreProducts) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    check_product<DType::bf16, true>(Fault::none, seed);
    check_product<DType::bf16, false>(Fault::none, seed);
    check_product<DType::f16, true>(Fault::none, seed);
  }
}

template <class Body>
void expect_failure(Body body, const std::string& words, unsigned threads = 128) {
  EXPECT_THAT(([&] { launch({.grid = {}, .block = {threads}, .shared_bytes = 1024}, body); }),
              ThrowsMessage<Failure>(HasSubstr(words)));
}

TEST(CudaEmulator, FindsAMissingWaitBarrierOrCommit) {
  for (const Fault fault : {Fault::no_wait, Fault::no_barrier, Fault::no_commit})
    EXPECT_THAT(([&] { check_product<DType::bf16, true>(fault, 1); }), ThrowsMessage<Failure>(HasSubstr("race")));
}

TEST(CudaEmulator, FindsRacesOfPlainAccesses) {
  const auto at = [](unsigned i) { return shared_memory() + 4 * i; };
  expect_failure([&] { store_shared(at(0), threadIdx.x); }, "writes shared byte 0");
  expect_failure(
      [&] {
        store_shared(at(threadIdx.x), 1.0F);
        (void)load_shared<float>(at((threadIdx.x + 32) % 128));
      },
      "race");
  expect_failure(
      [&] {
        (void)load_shared<float>(at(0));
        __syncwarp();
        if (threadIdx.x == 5) store_shared(at(0), 1.0F);
      },
      "race");
  launch({.grid = {}, .block = {128}, .shared_bytes = 1024}, [&] {  // and finds none here
    store_shared(at(threadIdx.x), threadIdx.x);
    __syncwarp();
    EXPECT_EQ(load_shared<unsigned>(at(threadIdx.x ^ 1)), threadIdx.x ^ 1);
    __syncthreads();
    store_shared(at(127 - threadIdx.x), threadIdx.x);
  });
}

TEST(CudaEmulator, NamedBarriersOrderThoseWhoArriveBeforeThoseWhoWait) {
  launch({.grid = {}, .block = {128}, .shared_bytes = 1024}, [] {
    if (threadIdx.x < 64) {
      store_shared(shared_memory() + 4 * threadIdx.x, threadIdx.x);
      barrier_arrive(3, 128);
    } else {
      barrier_wait(3, 128);
      EXPECT_EQ(load_shared<unsigned>(shared_memory() + 4 * (threadIdx.x - 64)), threadIdx.x - 64);
    }
  });
  expect_failure(
      [] {
        if (threadIdx.x < 64) barrier_wait(3, 128);
      },
      "64 threads");
}

TEST(CudaEmulator, FindsLanesThatPartWays) {
  expect_failure([] { threadIdx.x % 32 == 7 ? (void)__shfl_xor_sync(~0U, 1, 1) : __syncwarp(); }, "part ways");
  expect_failure(
      [] {
        if (threadIdx.x != 9) __syncwarp();
      },
      "nobody can go on");
  expect_failure(
      [] {
        if (threadIdx.x < 32) __syncthreads();
      },
      "nothing, they have returned");
}

TEST(CudaEmulator, FindsBadAddresses) {
  alignas(16) static const std::byte from[64] = {};
  expect_failure([] { store_shared(shared_memory() + 1024, 1.0F); }, "shared bytes [1024");
  expect_failure([] { store_shared(shared_memory() - 4, 1.0F); }, "shared bytes [-4");
  expect_failure([] { store_shared(shared_memory() + 2 + 4 * threadIdx.x, 1.0F); }, "not aligned");
  expect_failure([] { copy_async(shared_memory() + 8, from, 16); }, "not aligned");
  expect_failure([] { copy_async(shared_memory(), from + 8, 16); }, "not aligned");
  expect_failure(
      [] {
        std::uint32_t r[4];
        load_matrices<false>(r, shared_memory() + 8);
      },
      "not aligned");
}

TEST(CudaEmulator, SharedMemoryBeginsAsNanAndCopiesFillUpWithZero) {
  alignas(16) static const std::uint32_t from[4] = {1, 2, 3, 4};
  launch({.grid = {}, .block = {32}, .shared_bytes = 512}, [] {
    const std::uint32_t mine = shared_memory() + 16 * threadIdx.x;
    EXPECT_TRUE(std::isnan(load_shared<float>(mine)));
    copy_async(mine, from, 6);
    copy_async_commit();
    copy_async_wait<0>();
    EXPECT_EQ(load_shared<std::uint32_t>(mine), 1U);
    EXPECT_EQ(load_shared<std::uint32_t>(mine + 4), 2U);
    EXPECT_EQ(load_shared<std::uint32_t>(mine + 8), 0U);
  });
}

TEST(CudaEmulator, EarlierGroupsLandWhileLaterOnesAreUnderWay) {
  alignas(16) static const std::uint32_t from[4] = {1, 2, 3, 4};
  expect_failure(
      [] {
        const std::uint32_t mine = shared_memory() + 32 * threadIdx.x;
        copy_async(mine, from, 16);
        copy_async_commit();
        copy_async(mine + 16, from, 16);
        copy_async_commit();
        copy_async_wait<1>();
        EXPECT_EQ(load_shared<std::uint32_t>(mine + 4), 2U);
        (void)load_shared<std::uint32_t>(mine + 20);
      },
      "still copying", 32);
}

TEST(CudaEmulator, RunsEveryThreadOfEveryBlockOnce) {
  std::vector<int> seen(3 * 2 * 64);
  launch({.grid = {3, 2}, .block = {32, 2}}, [&] {
    ++seen[(blockIdx.x + gridDim.x * blockIdx.y) * 64 + threadIdx.y * blockDim.x + threadIdx.x];
    EXPECT_EQ(__shfl_sync(~0U, threadIdx.x + threadIdx.y, 3), 3 + threadIdx.y);
  });
  EXPECT_THAT(seen, ::testing::Each(1));
}

TEST(CudaEmulator, ErrorsNameBlockAndThread) {
  expect_failure(
      [] {
        if (threadIdx.x == 7) emulator::fail("on purpose");
        __syncthreads();
      },
      "block (0, 0, 0) thread 7: on purpose");
}

}  // namespace
}  // namespace annulus::test

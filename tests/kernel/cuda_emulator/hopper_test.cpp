#include "kernel/cuda_emulator/hopper.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "kernel/cuda/hopper.cuh"

// The emulator of Hopper's instructions judges kernels; these judge the emulator.

namespace annulus::test {
namespace {

using namespace cuda;
using emulator::Failure;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

enum class Fault {
  none,
  no_wait_for_copy,
  too_few_bytes,
  too_many_bytes,
  no_fence,
  no_commit,
  no_wait_for_product,
  copy_over_operand,
  store_without_fence,
};

constexpr int rows = 64, panel_bytes = rows * 128;

/// c[64, 64] = a b^T of [64, 64], then c += bf16(c) b: both ways in which a product meets a panel.
void products(const TensorMap& a, const TensorMap& b, float* c, Fault fault) {
  const std::uint32_t a_at = shared_memory(), b_at = a_at + panel_bytes, barrier = b_at + panel_bytes;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  if (thread == 0) {
    memory_barrier_init(barrier, 1);
    memory_barriers_ready();
  }
  __syncthreads();
  if (thread == 0) {
    const std::uint32_t wrong = fault == Fault::too_few_bytes ? -128U : fault == Fault::too_many_bytes ? 128U : 0U;
    memory_barrier_expect(barrier, 2 * panel_bytes + wrong);
    copy_panel(a_at, a, 0, 0, 0, barrier);
    copy_panel(b_at, b, 0, 1, 3, barrier);
  }
  if (fault != Fault::no_wait_for_copy) memory_barrier_wait(barrier, 0);
  if (fault == Fault::store_without_fence) {
    if (thread == 0) store_shared(a_at, std::uint16_t{0});
    __syncthreads();
  }
  float d[1][8][4];
  if (fault != Fault::no_fence) warpgroup_fence();
  for (std::uint32_t k = 0; k < 4; ++k)
    warpgroup_multiply<DType::bf16>(d, along_rows(a_at + 32 * k), along_rows(b_at + 32 * k), k > 0);
  if (fault != Fault::no_commit) warpgroup_commit();
  if (fault == Fault::copy_over_operand) {
    __syncthreads();
    if (thread == 0) copy_panel(b_at, b, 0, 0, 0, barrier);
  }
  if (fault != Fault::no_wait_for_product) warpgroup_wait<0>();
  std::uint32_t left[4][4];
  for (int k = 0; k < 4; ++k)
    for (int e = 0; e < 4; ++e)
      left[k][e] = pack<DType::bf16>(d[0][2 * k + e / 2][e % 2 * 2], d[0][2 * k + e / 2][e % 2 * 2 + 1]);
  warpgroup_fence();
  for (std::uint32_t k = 0; k < 4; ++k)
    warpgroup_multiply<DType::bf16>(d, left[k], down_rows(b_at + k * 16 * 128, panel_bytes));
  warpgroup_commit();
  warpgroup_wait<0>();
  for (int n = 0; n < 8; ++n)
    for (int e = 0; e < 4; ++e)
      c[(thread / 32 * 16 + lane / 4 + e / 2 * 8) * 64 + n * 8 + lane % 4 * 2 + e % 2] = d[0][n][e];
}

struct Matrices {
  explicit Matrices(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (auto* all : {&a, &b})
      for (auto& x : *all) x = to_bf16(normal(random));
  }
  // a: 50 tokens of 1 head of 64 channels; b: 64 tokens of 2 heads of 40 channels, read from token 3 of head 1
  std::vector<std::uint16_t> a = std::vector<std::uint16_t>(50 * 64), b = std::vector<std::uint16_t>(64 * 2 * 40);
  std::vector<float> c = std::vector<float>(64 * 64);
  double left(int i, int k) const { return i < 50 ? from_bf16(a[static_cast<std::size_t>(i * 64 + k)]) : 0; }
  double right(int j, int k) const {
    return j + 3 < 64 && k < 40 ? from_bf16(b[static_cast<std::size_t>((j + 3) * 80 + 40 + k)]) : 0;
  }
  void multiply(Fault fault, unsigned seed) {
    const TensorMap map_a{dense_rows(a.data(), DType::bf16, 50, 1, 64), rows},
        map_b{dense_rows(b.data(), DType::bf16, 64, 2, 40), rows};
    emulator::launch({.grid = {}, .block = {128}, .shared_bytes = 2 * panel_bytes + 8, .seed = seed},
                     [&] { products(map_a, map_b, c.data(), fault); });
  }
};

TEST(HopperEmulator, ProductsOfCopiedPanelsAreProducts) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    Matrices m(seed);
    m.multiply(Fault::none, seed);
    for (int i = 0; i < 64; ++i) {
      double first[64];
      for (int j = 0; j < 64; ++j) {
        first[j] = 0;
        for (int k = 0; k < 64; ++k) first[j] += m.left(i, k) * m.right(j, k);
      }
      for (int n = 0; n < 64; ++n) {
        double sum = first[n], magnitude = 1;
        for (int k = 0; k < 64; ++k) {
          const double term = from_bf16(to_bf16(static_cast<float>(first[k]))) * m.right(k, n);
          sum += term;
          magnitude += std::abs(term);
        }
        // where f32 and f64 round to different bf16, one term is off by 2^-8 of itself
        ASSERT_NEAR(m.c[static_cast<std::size_t>(i * 64 + n)], sum, 0x1p-10 * magnitude) << i << ", " << n;
      }
    }
  }
}

TEST(HopperEmulator, FindsWhatWouldGoWrongOnlySometimesOnAGpu) {
  const auto expect = [](Fault fault, const std::string& words) {
    EXPECT_THAT(([&] { Matrices(1).multiply(fault, 1); }), ThrowsMessage<Failure>(HasSubstr(words)));
  };
  expect(Fault::no_wait_for_copy, "still copying");
  expect(Fault::too_few_bytes, "a memory barrier");
  expect(Fault::too_many_bytes, "a memory barrier");
  expect(Fault::no_fence, "without a fence");
  expect(Fault::copy_over_operand, "race");
  expect(Fault::store_without_fence, "stored without a fence");
}

TEST(HopperEmulator, AccumulatorsAreNanUntilTheirGroupIsWaitedFor) {
  for (const Fault fault : {Fault::no_commit, Fault::no_wait_for_product}) {
    Matrices m(1);
    m.multiply(fault, 1);
    EXPECT_TRUE(std::isnan(m.c[5]));
  }
}

TEST(HopperEmulator, BarriersOfMemoryCountPhases) {
  const emulator::Launch one{.grid = {}, .block = {128}, .shared_bytes = 1024};
  emulator::launch(one, [] {  // two warps hand a place over, 5 times
    const std::uint32_t full = shared_memory(), empty = full + 8, place = full + 16;
    if (threadIdx.x == 0) {
      memory_barrier_init(full, 32);
      memory_barrier_init(empty, 1);
      memory_barriers_ready();
    }
    __syncthreads();
    for (unsigned n = 0; n < 5; ++n) {
      if (threadIdx.x < 32) {
        memory_barrier_wait(empty, n % 2 ^ 1);
        store_shared(place + 4 * threadIdx.x, n + threadIdx.x);
        memory_barrier_arrive(full);
      } else if (threadIdx.x < 64) {
        memory_barrier_wait(full, n % 2);
        EXPECT_EQ(load_shared<unsigned>(place + 4 * (threadIdx.x - 32)), n + threadIdx.x - 32);
        __syncwarp();
        if (threadIdx.x == 32) memory_barrier_arrive(empty);
      }
    }
  });
  EXPECT_THAT(([&] {
                emulator::launch(one, [] {
                  if (threadIdx.x == 0) memory_barrier_init(shared_memory(), 1);
                  memory_barrier_wait(shared_memory(), 1);
                });
              }),
              ThrowsMessage<Failure>(HasSubstr("barrier")));
}

}  // namespace
}  // namespace annulus::test

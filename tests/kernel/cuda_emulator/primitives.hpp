#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "annulus/base/types.hpp"
#include "annulus/memory/numbers16.hpp"
#include "kernel/cuda_emulator/emulator.hpp"

// Host twins of src/kernel/cuda/primitives.cuh: same names, same meaning, by the PTX manual's fragment layouts.

namespace annulus::cuda {

// --- shared memory ---------------------------------------------------------------------------------------------------

inline std::uint32_t shared_memory() { return emulator::SharedMemory::base; }

template <class T>
T load_shared(std::uint32_t address) {
  T value;
  std::memcpy(&value, emulator::shared_memory().read(address, sizeof(T), emulator::thread(), emulator::clock()),
              sizeof(T));
  return value;
}

template <class T>
void store_shared(std::uint32_t address, const T& value) {
  emulator::shared_memory().write(address, sizeof(T), &value, emulator::thread(), emulator::clock());
}

// --- cp.async: what is copied lands no sooner than the wait for its group --------------------------------------------

struct AsyncCopy {
  std::uint32_t to, count;
  std::array<std::byte, 16> bytes;
};
struct AsyncGroups {  // of one thread
  std::vector<AsyncCopy> open;
  std::vector<std::vector<AsyncCopy>> committed;
};
struct BlockAsyncGroups {
  std::vector<AsyncGroups> of_thread = std::vector<AsyncGroups>(static_cast<std::size_t>(emulator::threads()));
  AsyncGroups& mine() { return of_thread[static_cast<std::size_t>(emulator::thread())]; }
};

inline void start_copy(std::uint32_t to, const void* from, int bytes, std::uint32_t count) {
  if (bytes < 0 || bytes > static_cast<int>(count)) emulator::fail("cp.async of ", bytes, " bytes of ", count);
  if (reinterpret_cast<std::uintptr_t>(from) % count != 0)
    emulator::fail("cp.async from ", from, ": not aligned to ", count);
  AsyncCopy copy{to, count, {}};
  if (bytes > 0) std::memcpy(copy.bytes.data(), from, static_cast<std::size_t>(bytes));
  emulator::shared_memory().begin_write(to, count, emulator::thread(), emulator::clock());
  emulator::block_state<BlockAsyncGroups>().mine().open.push_back(copy);
}

inline void copy_async(std::uint32_t to, const void* from, int bytes) { start_copy(to, from, bytes, 16); }
inline void copy_async_number(std::uint32_t to, const void* from, bool there) {
  start_copy(to, from, there ? 4 : 0, 4);
}

inline void copy_async_commit() {
  AsyncGroups& mine = emulator::block_state<BlockAsyncGroups>().mine();
  mine.committed.push_back(std::move(mine.open));
  mine.open.clear();
}

template <int left>
void copy_async_wait() {
  auto& groups = emulator::block_state<BlockAsyncGroups>().mine().committed;
  while (groups.size() > left) {
    for (const AsyncCopy& copy : groups.front())
      emulator::shared_memory().land(copy.to, copy.count, copy.bytes.data(), emulator::thread(), emulator::clock());
    groups.erase(groups.begin());
  }
}

// --- named barriers --------------------------------------------------------------------------------------------------

inline void barrier_wait(int id, int threads) { emulator::named_barrier(id, threads, true); }
inline void barrier_arrive(int id, int threads) { emulator::named_barrier(id, threads, false); }

// --- warp matrix instructions ----------------------------------------------------------------------------------------

/// ldmatrix.x4[.trans]: lane l names row l % 8 of matrix l / 8; matrix n arrives in r[n].
template <bool transposed>
void load_matrices(std::uint32_t (&r)[4], std::uint32_t row) {
  struct Lane {
    std::array<std::uint16_t, 8> elements;
    std::uint32_t* r;
  } lane{load_shared<std::array<std::uint16_t, 8>>(row), r};
  const char* const what = transposed ? "ldmatrix.trans" : "ldmatrix";
  emulator::collective(emulator::thread() / 32 * 32, 32, what, &lane, [](std::span<void* const> lanes) {
    const auto element = [&](unsigned matrix, unsigned i, unsigned j) -> unsigned {
      return static_cast<const Lane*>(lanes[matrix * 8 + i])->elements[j];
    };
    for (unsigned l = 0; l < 32; ++l)
      for (unsigned n = 0; n < 4; ++n) {
        const unsigned i = l / 4, j = l % 4 * 2;
        const unsigned low = transposed ? element(n, j, i) : element(n, i, j);
        const unsigned high = transposed ? element(n, j + 1, i) : element(n, i, j + 1);
        static_cast<Lane*>(lanes[l])->r[n] = low | high << 16;
      }
  });
}

template <DType type>
float number16(unsigned bits) {
  static_assert(type == DType::bf16 || type == DType::f16);
  const auto half = static_cast<std::uint16_t>(bits);
  return type == DType::bf16 ? from_bf16(half) : from_f16(half);
}

/// mma.m16n8k16: d[16, 8] += a[16, 16] b[16, 8], accumulated in f32.
template <DType type>
void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  struct Lane {
    float* d;
    const std::uint32_t* a;
    std::uint32_t b[2];
  } lane{d, a, {b0, b1}};
  emulator::collective(emulator::thread() / 32 * 32, 32, "mma", &lane, [](std::span<void* const> lanes) {
    float left[16][16], right[16][8];
    const auto of = [&](unsigned l) { return static_cast<Lane*>(lanes[l]); };
    const auto half = [](std::uint32_t pair, unsigned which) { return number16<type>(pair >> (16 * which) & 0xffff); };
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned group = l / 4, in_group = l % 4;
      for (unsigned e = 0; e < 8; ++e) {
        const unsigned i = group + (e / 2 % 2 == 1 ? 8 : 0), k = in_group * 2 + e % 2 + (e >= 4 ? 8 : 0);
        left[i][k] = half(of(l)->a[e / 2], e % 2);
      }
      for (unsigned e = 0; e < 4; ++e)
        right[in_group * 2 + e % 2 + (e >= 2 ? 8 : 0)][group] = half(of(l)->b[e / 2], e % 2);
    }
    for (unsigned l = 0; l < 32; ++l)
      for (unsigned e = 0; e < 4; ++e) {
        const unsigned i = l / 4 + (e >= 2 ? 8 : 0), j = l % 4 * 2 + e % 2;
        double sum = of(l)->d[e];
        for (unsigned k = 0; k < 16; ++k) sum += static_cast<double>(left[i][k]) * right[k][j];
        of(l)->d[e] = static_cast<float>(sum);
      }
  });
}

// --- numbers ---------------------------------------------------------------------------------------------------------

inline float product(float x, float y) {
  const volatile float rounded = x * y;  // the compiler must not see that it is a product
  return rounded;
}

inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x; }

inline float exp2_fast(float x) { return flushed(std::exp2(flushed(x))); }
inline float log2_fast(float x) { return std::log2(flushed(x)); }

/// Two numbers in one register, the first in the low half.
template <DType type>
std::uint32_t pack(float low, float high) {
  static_assert(type == DType::bf16 || type == DType::f16);
  const auto bits = [](float x) -> std::uint32_t { return type == DType::bf16 ? to_bf16(x) : to_f16(x); };
  return bits(low) | bits(high) << 16;
}

}  // namespace annulus::cuda

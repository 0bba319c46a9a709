#pragma once
#include <cstdint>

#include "annulus/base/types.hpp"

// The instructions that CUDA C++ has no words for, and nothing else. Without nvcc, tests define the same names on the
// CPU before they include a kernel (tests/kernel/cuda_emulator).
//
// Fragments of a warp, lane = 4 g + t (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"):
//   a[0] rows g,     columns 2t, 2t+1      a[2] rows g,     columns 2t+8, 2t+9
//   a[1] rows g + 8, columns 2t, 2t+1      a[3] rows g + 8, columns 2t+8, 2t+9
//   b0   rows 2t, 2t+1,     column g       b1   rows 2t+8, 2t+9, column g
//   d[0], d[1]  row g, columns 2t, 2t+1    d[2], d[3]  row g + 8

#if !defined(__CUDACC__) && !defined(ANNULUS_CUDA_EMULATOR)
#error "kernels are compiled by nvcc, or with the emulator's header before them"
#endif

#if defined(__CUDACC__)
namespace annulus::cuda {

// --- shared memory, by its own 32-bit addresses ----------------------------------------------------------------------

/// Where the block's dynamic shared memory begins; a multiple of 1024.
__device__ __forceinline__ std::uint32_t shared_memory() {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(dynamic_shared_memory));
}

template <class T>
__device__ __forceinline__ T load_shared(std::uint32_t address) {
  return *static_cast<const T*>(__cvta_shared_to_generic(address));
}

template <class T>
__device__ __forceinline__ void store_shared(std::uint32_t address, const T& value) {
  *static_cast<T*>(__cvta_shared_to_generic(address)) = value;
}

// --- cp.async --------------------------------------------------------------------------------------------------------

/// Starts a copy of `bytes` (0 to 16) bytes; the rest of the 16 at `to` become zero. Both addresses: multiples of 16.
__device__ __forceinline__ void copy_async(std::uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
               "r"(bytes)
               : "memory");
}

/// As copy_async for one f32, zero unless it is there.
__device__ __forceinline__ void copy_async_number(std::uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
               "r"(there ? 4 : 0)
               : "memory");
}

/// Closes the group of copies that this thread has started since the last one.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until no more than the `left` latest groups of this thread are under way. Others need a barrier after it.
template <int left>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

// --- named barriers 0 to 15 (0 is __syncthreads) of some warps of the block ------------------------------------------

/// Waits until `threads` threads, a multiple of 32, have arrived at barrier `id`, this one included.
__device__ __forceinline__ void barrier_wait(int id, int threads) {
  asm volatile("barrier.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/// Arrives without waiting.
__device__ __forceinline__ void barrier_arrive(int id, int threads) {
  asm volatile("barrier.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- warp matrix instructions ----------------------------------------------------------------------------------------

/// Four 8 x 8 matrices of 16-bit elements: lane l names row l % 8 of matrix l / 8; matrix n arrives in r[n], element
/// (g, 2t) in the low half and (g, 2t + 1) in the high one; of the transposed matrices if so asked.
template <bool transposed>
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], std::uint32_t row) {
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  }
}

/// d[16, 8] += a[16, 16] b[16, 8], accumulated in f32.
template <DType type>
__device__ __forceinline__ void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                         std::uint32_t b1) {
  static_assert(type == DType::bf16 || type == DType::f16);
  if constexpr (type == DType::bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// --- numbers ---------------------------------------------------------------------------------------------------------

/// x y, rounded: never a part of a fused multiply and add.
__device__ __forceinline__ float product(float x, float y) { return __fmul_rn(x, y); }

/// 2^x and log2 x to about 2 units in the last place; numbers below 2^-126 are taken for 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Two numbers in one register, the first in the low half; rounded to nearest even.
template <DType type>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  static_assert(type == DType::bf16 || type == DType::f16);
  std::uint32_t both;
  if constexpr (type == DType::bf16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  }
  return both;
}

}  // namespace annulus::cuda
#endif

#pragma once
#include <cstdint>

#include "kernel/cuda/primitives.cuh"

// Instructions of sm_90a (Hopper): tensor maps, memory barriers, matrix products of warpgroups. As in primitives.cuh,
// tests define the same names on the CPU (tests/kernel/cuda_emulator/hopper.hpp).
//
// A warpgroup is four neighbouring warps, the first at a multiple of four. Of d[64, n] warp w holds rows 16 w and on, as
// the fragments of primitives.cuh: d[0][j] holds columns 8 j and on. Products are asynchronous: from
// warpgroup_multiply to the warpgroup_wait that ends them, nobody may touch d or the registers of a.
//
// Operands in shared memory are panels: rows of 128 bytes (64 elements), 1024-byte aligned, swizzled as the tensor copy
// writes them: chunk c of 16 bytes of row r lies in place c xor (r mod 8). (PTX ISA, "Asynchronous Warpgroup Level
// Matrix Shared Memory Layout".)

namespace annulus::cuda {

constexpr int warpgroup_threads = 128;
constexpr int panel_channels = 64, panel_row_bytes = 128;

/// What names an operand in shared memory: address, distances and swizzle mode, all but the mode in units of 16 bytes.
constexpr std::uint64_t descriptor(std::uint32_t address, std::uint32_t leading_bytes, std::uint32_t stride_bytes) {
  constexpr std::uint64_t swizzle_128_bytes = std::uint64_t{1} << 62;
  return (address & 0x3ffff) >> 4 | std::uint64_t{leading_bytes >> 4} << 16 | std::uint64_t{stride_bytes >> 4} << 32 |
         swizzle_128_bytes;
}
/// The product runs along the panel's rows of 64 elements (K-major): 16 of them from `address`, eight rows are 1024
/// bytes. The leading distance counts for nothing here.
constexpr std::uint64_t along_rows(std::uint32_t address) { return descriptor(address, 16, 1024); }
/// The product runs down the panel's rows (MN-major): 16 rows from `address`; the next 64 elements of a row lie
/// panel_bytes further on.
constexpr std::uint64_t down_rows(std::uint32_t address, std::uint32_t panel_bytes) {
  return descriptor(address, panel_bytes, 1024);
}

}  // namespace annulus::cuda

#if defined(__CUDACC__)
namespace annulus::cuda {

/// Rows in global memory cut into panels; what cuTensorMapEncodeTiled writes.
struct alignas(128) TensorMap {
  unsigned char words[128];
};

// --- memory barriers: 8 bytes of shared memory ------------------------------------------------------------------------

/// A phase ends when `count` threads have arrived and all bytes announced have landed. Before others use it:
/// memory_barriers_ready by the thread that made it, then a barrier of the block.
__device__ __forceinline__ void memory_barrier_init(std::uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ __forceinline__ void memory_barriers_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void memory_barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and announces bytes that copy_panel will bring.
__device__ __forceinline__ void memory_barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Waits until a phase of this parity is over; at first that is phase 0, and phase -1 counts as over.
__device__ __forceinline__ void memory_barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// --- tensor copies ----------------------------------------------------------------------------------------------------

/// Starts the copy of a panel: as many rows as the map's box from `row`, 64 channels from `channel`, of one head. What
/// lies outside of the rows or channels becomes zero, and counts as bytes.
__device__ __forceinline__ void copy_panel(std::uint32_t to, const TensorMap& map, int channel, int head, int row,
                                           std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(to),
      "l"(&map), "r"(channel), "r"(head), "r"(row), "r"(barrier)
      : "memory");
}
/// What this thread has stored to shared memory may be read by matrix products, after a barrier.
__device__ __forceinline__ void fence_stores_for_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// --- registers of a warpgroup -----------------------------------------------------------------------------------------

template <int registers>
__device__ __forceinline__ void give_registers() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void take_registers() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// --- matrix products --------------------------------------------------------------------------------------------------

/// Keeps the compiler from moving work on these registers across: it does not know that products are asynchronous.
template <int rows16, int columns8>
__device__ __forceinline__ void settle(float (&d)[rows16][columns8][4]) {
#pragma unroll
  for (int n = 0; n < columns8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[0][n][e])::"memory");
}
template <int steps>
__device__ __forceinline__ void settle(std::uint32_t (&a)[steps][4]) {
#pragma unroll
  for (int k = 0; k < steps; ++k)
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+r"(a[k][e])::"memory");
}

/// Registers written so far may be used by the products that follow: before the first, and after every change.
__device__ __forceinline__ void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Closes the group of products started since the last one.
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until no more than the `left` latest groups are under way. settle() what it ends.
template <int left>
__device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

// clang-format off
#define ANNULUS_REGISTERS_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ANNULUS_ACCUMULATORS_64 \
  "+f"(d[0][0][0]), "+f"(d[0][0][1]), "+f"(d[0][0][2]), "+f"(d[0][0][3]), "+f"(d[0][1][0]), "+f"(d[0][1][1]), \
  "+f"(d[0][1][2]), "+f"(d[0][1][3]), "+f"(d[0][2][0]), "+f"(d[0][2][1]), "+f"(d[0][2][2]), "+f"(d[0][2][3]), \
  "+f"(d[0][3][0]), "+f"(d[0][3][1]), "+f"(d[0][3][2]), "+f"(d[0][3][3]), "+f"(d[0][4][0]), "+f"(d[0][4][1]), \
  "+f"(d[0][4][2]), "+f"(d[0][4][3]), "+f"(d[0][5][0]), "+f"(d[0][5][1]), "+f"(d[0][5][2]), "+f"(d[0][5][3]), \
  "+f"(d[0][6][0]), "+f"(d[0][6][1]), "+f"(d[0][6][2]), "+f"(d[0][6][3]), "+f"(d[0][7][0]), "+f"(d[0][7][1]), \
  "+f"(d[0][7][2]), "+f"(d[0][7][3])
#define ANNULUS_REGISTERS_128 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ANNULUS_ACCUMULATORS_128 \
  "+f"(d[0][0][0]), "+f"(d[0][0][1]), "+f"(d[0][0][2]), "+f"(d[0][0][3]), "+f"(d[0][1][0]), "+f"(d[0][1][1]), \
  "+f"(d[0][1][2]), "+f"(d[0][1][3]), "+f"(d[0][2][0]), "+f"(d[0][2][1]), "+f"(d[0][2][2]), "+f"(d[0][2][3]), \
  "+f"(d[0][3][0]), "+f"(d[0][3][1]), "+f"(d[0][3][2]), "+f"(d[0][3][3]), "+f"(d[0][4][0]), "+f"(d[0][4][1]), \
  "+f"(d[0][4][2]), "+f"(d[0][4][3]), "+f"(d[0][5][0]), "+f"(d[0][5][1]), "+f"(d[0][5][2]), "+f"(d[0][5][3]), \
  "+f"(d[0][6][0]), "+f"(d[0][6][1]), "+f"(d[0][6][2]), "+f"(d[0][6][3]), "+f"(d[0][7][0]), "+f"(d[0][7][1]), \
  "+f"(d[0][7][2]), "+f"(d[0][7][3]), "+f"(d[0][8][0]), "+f"(d[0][8][1]), "+f"(d[0][8][2]), "+f"(d[0][8][3]), \
  "+f"(d[0][9][0]), "+f"(d[0][9][1]), "+f"(d[0][9][2]), "+f"(d[0][9][3]), "+f"(d[0][10][0]), "+f"(d[0][10][1]), \
  "+f"(d[0][10][2]), "+f"(d[0][10][3]), "+f"(d[0][11][0]), "+f"(d[0][11][1]), "+f"(d[0][11][2]), "+f"(d[0][11][3]), \
  "+f"(d[0][12][0]), "+f"(d[0][12][1]), "+f"(d[0][12][2]), "+f"(d[0][12][3]), "+f"(d[0][13][0]), "+f"(d[0][13][1]), \
  "+f"(d[0][13][2]), "+f"(d[0][13][3]), "+f"(d[0][14][0]), "+f"(d[0][14][1]), "+f"(d[0][14][2]), "+f"(d[0][14][3]), \
  "+f"(d[0][15][0]), "+f"(d[0][15][1]), "+f"(d[0][15][2]), "+f"(d[0][15][3])
// clang-format on

/// d[64, n] = a[64, 16] b[n, 16]^T, added to what d holds if so asked; both operands by along_rows.
template <DType type, int columns8>
__device__ __forceinline__ void warpgroup_multiply(float (&d)[1][columns8][4], std::uint64_t a, std::uint64_t b,
                                                   bool add) {
  static_assert((type == DType::bf16 || type == DType::f16) && (columns8 == 8 || columns8 == 16));
  if constexpr (columns8 == 8) {
    if constexpr (type == DType::bf16) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" ANNULUS_REGISTERS_64 "}, %32, %33, p, 1, 1, 0, 0;\n}"
          : ANNULUS_ACCUMULATORS_64
          : "l"(a), "l"(b), "r"(int{add})
          : "memory");
    } else {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" ANNULUS_REGISTERS_64 "}, %32, %33, p, 1, 1, 0, 0;\n}"
          : ANNULUS_ACCUMULATORS_64
          : "l"(a), "l"(b), "r"(int{add})
          : "memory");
    }
  } else {
    if constexpr (type == DType::bf16) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ANNULUS_REGISTERS_128
          "}, %64, %65, p, 1, 1, 0, 0;\n}"
          : ANNULUS_ACCUMULATORS_128
          : "l"(a), "l"(b), "r"(int{add})
          : "memory");
    } else {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" ANNULUS_REGISTERS_128 "}, %64, %65, p, 1, 1, 0, 0;\n}"
          : ANNULUS_ACCUMULATORS_128
          : "l"(a), "l"(b), "r"(int{add})
          : "memory");
    }
  }
}

/// d[64, n] += a[64, 16] b[16, n]; a as fragments in registers, b by down_rows.
template <DType type, int columns8>
__device__ __forceinline__ void warpgroup_multiply(float (&d)[1][columns8][4], const std::uint32_t (&a)[4],
                                                   std::uint64_t b) {
  static_assert((type == DType::bf16 || type == DType::f16) && (columns8 == 8 || columns8 == 16));
  if constexpr (columns8 == 8) {
    if constexpr (type == DType::bf16) {
      asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" ANNULUS_REGISTERS_64
                   "}, "
                   "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                   : ANNULUS_ACCUMULATORS_64
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
                   : "memory");
    } else {
      asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" ANNULUS_REGISTERS_64
                   "}, "
                   "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                   : ANNULUS_ACCUMULATORS_64
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
                   : "memory");
    }
  } else {
    if constexpr (type == DType::bf16) {
      asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ANNULUS_REGISTERS_128
                   "}, "
                   "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                   : ANNULUS_ACCUMULATORS_128
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
                   : "memory");
    } else {
      asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" ANNULUS_REGISTERS_128
                   "}, "
                   "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                   : ANNULUS_ACCUMULATORS_128
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
                   : "memory");
    }
  }
}

#undef ANNULUS_REGISTERS_64
#undef ANNULUS_REGISTERS_128
#undef ANNULUS_ACCUMULATORS_64
#undef ANNULUS_ACCUMULATORS_128

}  // namespace annulus::cuda
#endif

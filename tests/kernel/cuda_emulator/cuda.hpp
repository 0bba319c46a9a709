#pragma once
#include <algorithm>
#include <cstdint>

#include "kernel/cuda_emulator/emulator.hpp"

// The CUDA words that a kernel body uses, for g++. To be included before the kernel's own headers, which then find
// every primitive of kernel/cuda/primitives.cuh here (primitives.hpp beside this) instead of inline PTX.

#define ANNULUS_CUDA_EMULATOR 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static  // one block runs at a time; neither poisoned nor watched for races: prefer dynamic memory

#define threadIdx annulus::emulator::thread_index
#define blockIdx annulus::emulator::block_index
#define blockDim annulus::emulator::block_dim
#define gridDim annulus::emulator::grid_dim

using std::max;
using std::min;

inline int warp_start() { return annulus::emulator::thread() / 32 * 32; }

inline void __syncthreads() { annulus::emulator::synchronise(0, annulus::emulator::threads(), "__syncthreads"); }
inline void __syncwarp() { annulus::emulator::synchronise(warp_start(), 32, "__syncwarp"); }

/// The value of the lane that each lane names; all 32 lanes take part.
template <class T, class From>
T emulated_shuffle(const char* what, T value, From from) {
  struct Lane {
    T value, got;
  } lane{value, value};
  annulus::emulator::collective(warp_start(), 32, what, &lane, [&](std::span<void* const> lanes) {
    for (unsigned l = 0; l < 32; ++l)
      static_cast<Lane*>(lanes[l])->got = static_cast<const Lane*>(lanes[from(l) % 32])->value;
  });
  return lane.got;
}

inline void full_mask_only(unsigned mask) {
  if (mask != ~0U) annulus::emulator::fail("a shuffle among some lanes only is not emulated");
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
  full_mask_only(mask);
  return emulated_shuffle("__shfl_xor_sync", value,
                          [=](unsigned lane) { return lane ^ static_cast<unsigned>(distance); });
}

/// Every lane must name the same lane.
template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
  full_mask_only(mask);
  return emulated_shuffle("__shfl_sync", value, [=](unsigned) { return static_cast<unsigned>(from); });
}

#include "kernel/cuda_emulator/primitives.hpp"  // NOLINT: needs the words above

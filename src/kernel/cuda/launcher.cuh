#pragma once
#include <limits>

#include "annulus/base/error.hpp"
#include "kernel/cuda/body.hpp"
#include "memory/cuda/device.hpp"

namespace annulus::cuda {

extern __shared__ __align__(128) std::byte dynamic_shared[];

/// A thread of a body on a GPU.
struct GpuThread {
  __device__ int index() const { return static_cast<int>(threadIdx.x); }
  __device__ Index job() const { return blockIdx.x; }
  __device__ Index head() const { return blockIdx.y; }
  __device__ std::byte* shared() const { return dynamic_shared; }
  __device__ void sync() const { __syncthreads(); }
  template <class T>
  __device__ T shuffle_xor(T x, int mask) const {
    return __shfl_xor_sync(0xffffffffU, x, mask);
  }
  __device__ void add(unsigned long long* sum, unsigned long long x) const { atomicAdd(sum, x); }
  __device__ void raise(unsigned* most, unsigned x) const { atomicMax(most, x); }
};

template <class Body>
__global__ void __launch_bounds__(Body::threads, 1) entry(const __grid_constant__ Body body) {
  GpuThread thread;
  body(thread);
}

/// Runs bodies on the stream of a device.
class GpuLauncher {
 public:
  explicit GpuLauncher(Device& device) : device_(&as_cuda(device)) {}
  Device& device() const { return *device_; }

  void upload(std::byte* to, std::span<const std::byte> values) const {
    if (values.empty()) return;
    device_->use();
    // from pageable memory: the values are taken before the call returns
    check(cudaMemcpyAsync(to, values.data(), values.size(), cudaMemcpyHostToDevice, device_->stream()),
          "cudaMemcpyAsync");
  }

  template <class Body>
  void run(const Body& body, Index jobs, Index heads) const {
    require(jobs <= std::numeric_limits<int>::max(), "too many blocks of rows for one call: ", jobs);
    device_->use();
    if constexpr (Body::shared_bytes > 0)
      check(cudaFuncSetAttribute(entry<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, Body::shared_bytes),
            "cudaFuncSetAttribute");
    const dim3 grid(static_cast<unsigned>(jobs), static_cast<unsigned>(heads));
    entry<Body><<<grid, Body::threads, Body::shared_bytes, device_->stream()>>>(body);
    check(cudaGetLastError(), "starting a kernel");
  }

 private:
  CudaDevice* device_;
};

}  // namespace annulus::cuda

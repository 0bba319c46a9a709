#include "annulus/kernel/cuda.hpp"
#include "kernel/cuda/launcher.cuh"
#include "kernel/cuda/mma_kernel.hpp"

namespace annulus {

std::unique_ptr<Kernel> make_cuda_mma_kernel(const Problem& problem, Device& device) {
  const cudaDeviceProp& gpu = cuda::as_cuda(device).properties();
  require(gpu.major >= 8, "cuda-mma needs compute capability 8.0, but ", device.name(), " has ", gpu.major, ".",
          gpu.minor);
  return std::make_unique<cuda::MmaKernel<cuda::GpuLauncher>>(problem, cuda::GpuLauncher(device),
                                                              make_cuda_simt_kernel(problem, device));
}

}  // namespace annulus

#include "annulus/kernel/cuda.hpp"
#include "kernel/cuda/launcher.cuh"
#include "kernel/cuda/simt_kernel.hpp"

namespace annulus {

std::unique_ptr<Kernel> make_cuda_simt_kernel(const Problem& problem, Device& device) {
  return std::make_unique<cuda::SimtKernel<cuda::GpuLauncher>>(problem, cuda::GpuLauncher(device));
}

}  // namespace annulus

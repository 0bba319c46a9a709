#pragma once
#include "annulus/kernel/kernel.hpp"

namespace annulus {

/// Plain arithmetic on a GPU, f32 inside (f64 for f64 inputs): every type, any number of channels. The judge of the
/// other GPU kernels. The device (make_cuda_device) must outlive it. Throws Error (usage) for another kind of device.
std::unique_ptr<Kernel> make_cuda_simt_kernel(const Problem& problem, Device& device);

/// Tensor cores of GPUs of compute capability 8.0 and later, by mma.sync: bf16 and f16, up to 256 channels. Anything but
/// matrix products is left to cuda-simt. Throws Error (usage) when refused, and as make_cuda_simt_kernel.
std::unique_ptr<Kernel> make_cuda_mma_kernel(const Problem& problem, Device& device);
/// Empty, or why cuda-mma cannot run the problem on any GPU, as a phrase.
std::string cuda_mma_refusal(const Problem& problem);

/// Hopper's own instructions (compute capability 9.0: wgmma, tensor copies): bf16 and f16, up to 256 channels in
/// multiples of 8. What it does not do itself (backward of more than 128 channels, traces) is left to cuda-mma. `blocks` of threads (0: as many as the GPU has
/// multiprocessors) stay for a whole launch. Throws Error (usage) when refused, and as make_cuda_simt_kernel.
std::unique_ptr<Kernel> make_cuda_wgmma_kernel(const Problem& problem, Device& device, int blocks = 0);
/// Empty, or why cuda-wgmma cannot run the problem on any GPU, as a phrase.
std::string cuda_wgmma_refusal(const Problem& problem);

}  // namespace annulus

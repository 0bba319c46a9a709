#pragma once
#include "annulus/kernel/kernel.hpp"

namespace annulus {

/// Plain arithmetic on a GPU, f32 inside (f64 for f64 inputs): every type, any number of channels. The judge of the
/// other GPU kernels. The device (make_cuda_device) must outlive it. Throws Error (usage) for another kind of device.
std::unique_ptr<Kernel> make_cuda_simt_kernel(const Problem& problem, Device& device);

}  // namespace annulus

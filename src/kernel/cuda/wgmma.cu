#include <cuda.h>
#include <cudaTypedefs.h>

#include <array>
#include <cstring>

#include "annulus/kernel/cuda.hpp"
#include "kernel/cuda/launcher.cuh"
#include "kernel/cuda/wgmma_kernel.hpp"

namespace annulus {
namespace cuda {
namespace {

/// The driver's function, found when it is needed: the program must start where there is no driver.
PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  static const auto encoder = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
          "looking for cuTensorMapEncodeTiled");
    require(result == cudaDriverEntryPointSuccess && found != nullptr,
            "the CUDA driver is too old for cuda-wgmma: it has no cuTensorMapEncodeTiled");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
  }();
  return encoder;
}

class HopperLauncher : public GpuLauncher {
 public:
  using GpuLauncher::GpuLauncher;
  /// Of 16-bit rows: dimensions channels, heads, tokens; a box is 64 channels of one head of box_rows tokens.
  TensorMap tensor_map(const Rows& rows, int box_rows) const {
    const std::array<cuuint64_t, 3> extents{static_cast<cuuint64_t>(rows.channels), static_cast<cuuint64_t>(rows.heads),
                                            static_cast<cuuint64_t>(rows.tokens)};
    const std::array<cuuint64_t, 2> strides{static_cast<cuuint64_t>(rows.channels * bytes_of(rows.type)),
                                            static_cast<cuuint64_t>(rows.pitch)};
    const std::array<cuuint32_t, 3> box{panel_channels, 1, static_cast<cuuint32_t>(box_rows)}, steps{1, 1, 1};
    CUtensorMap map;
    const CUresult code = tensor_map_encoder()(
        &map, rows.type == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3,
        rows.data, extents.data(), strides.data(), box.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    require(code == CUDA_SUCCESS, "cuTensorMapEncodeTiled refused rows (code ", static_cast<int>(code),
            "): tokens = ", rows.tokens, ", heads = ", rows.heads, ", channels = ", rows.channels,
            ", pitch = ", rows.pitch, " bytes");
    TensorMap result;
    static_assert(sizeof(result) == sizeof(map) && alignof(TensorMap) >= alignof(CUtensorMap));
    std::memcpy(&result, &map, sizeof(map));
    return result;
  }
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Kernel> make_cuda_wgmma_kernel(const Problem& problem, Device& device, int blocks) {
  const cudaDeviceProp& gpu = cuda::as_cuda(device).properties();
  require(gpu.major == 9 && gpu.minor == 0, "cuda-wgmma needs compute capability 9.0, but ", device.name(), " has ",
          gpu.major, ".", gpu.minor);
  return std::make_unique<cuda::WgmmaKernel<cuda::HopperLauncher>>(problem, cuda::HopperLauncher(device),
                                                                   blocks > 0 ? blocks : gpu.multiProcessorCount,
                                                                   make_cuda_mma_kernel(problem, device));
}

}  // namespace annulus

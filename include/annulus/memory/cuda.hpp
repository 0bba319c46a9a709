#pragma once
#include <memory>
#include <string>
#include <vector>

#include "annulus/memory/device.hpp"

namespace annulus {

/// One GPU that this process sees.
struct CudaGpu {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  Index bytes = 0;
};

/// Empty when there is a GPU to compute on; else a phrase that says what is missing: a driver, a GPU, a newer driver.
std::string cuda_refusal();
/// All GPUs, by index; none when cuda_refusal() is not empty.
std::vector<CudaGpu> cuda_gpus();
/// Bytes that can still be allocated. Makes the calling process a user of that GPU.
Index cuda_free_bytes(int gpu);
/// "driver 13.0, runtime 13.0".
std::string cuda_versions();

/// How a device gets and frees memory; another library's functions where an exchange wants its own memory.
struct CudaMemory {
  std::byte* (*allocate)(Index bytes) = nullptr;  ///< nullptr: there is not enough
  void (*release)(std::byte* memory) noexcept = nullptr;
};

/// A GPU with one stream of work, in the order of the calls. Freed memory is kept for the next allocation of its size
/// and becomes free for work that is asked for later; nobody else may still use it. What comes from a `memory` of somebody
/// else comes in large pieces, from which small ones are cut. To be used by one thread.
/// Throws Error (usage) when there is no such GPU.
std::unique_ptr<Device> make_cuda_device(int gpu, const CudaMemory& memory = {});

/// Host memory that a GPU reads and writes at full speed and without the host's help (pinned).
std::unique_ptr<Device> make_pinned_memory();

/// Ranges that NVIDIA's profilers show on the line of the calling thread (NVTX); nothing where none listens.
void begin_profiler_range(const std::string& name);
void end_profiler_range();

}  // namespace annulus

#pragma once
#include <cuda_runtime.h>

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "annulus/memory/cuda.hpp"

namespace annulus::cuda {

/// Every code of the CUDA runtime becomes an Error here: fit for memory, runtime for the rest.
void check(cudaError_t code, const char* what);

class CudaDevice final : public Device {
 public:
  CudaDevice(int gpu, const CudaMemory& memory);
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice() override;

  Place place() const override { return Place::cuda; }
  std::string name() const override;
  std::byte* allocate(Index bytes) override;
  void release(std::byte* memory, Index bytes) noexcept override;
  void zero(std::byte* memory, Index bytes) override;
  void copy(std::byte* to, const std::byte* from, Index bytes) override;
  void convert(const Rows& from, const Rows& to) override;
  void copy_rows(const Rows& from, const Rows& to) override;
  void clear(const Rows& rows) override;
  void add(const Rows& from, const Rows& to) override;
  void finish() override;
  void pace() override;

  int gpu() const { return gpu_; }
  cudaStream_t stream() const { return stream_; }
  const cudaDeviceProp& properties() const { return properties_; }
  /// Makes this GPU the calling thread's.
  void use() const;
  /// The whole allocation that holds this address: what a library that registers memory wants to know, small pieces and
  /// large ones alike. No bytes when the memory is not this device's.
  struct Allocation {
    std::byte* base = nullptr;
    Index bytes = 0;
  };
  Allocation allocation_of(const std::byte* address) const;
  bool memory_is(const CudaMemory& memory) const { return memory.allocate == memory_.allocate; }
  /// Called before an allocation goes back to the GPU; an empty function ends that.
  void before_free(std::function<void(std::byte*)> told) { told_ = std::move(told); }

 private:
  static Index rounded(Index bytes);
  bool is_cut(Index bytes) const;
  std::byte* take(Index bytes);
  std::byte* cut(Index bytes);
  void give_back(std::byte* memory) noexcept;
  void free_kept() noexcept;

  int gpu_;
  CudaMemory memory_;
  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr;
  cudaEvent_t paced_ = nullptr;            // where the last pace() stood
  std::multimap<Index, std::byte*> kept_;  // freed pieces by bytes
  std::map<std::byte*, Index> pieces_;     // all that was taken from the GPU
  std::vector<std::byte*> slabs_;          // those of them that small pieces are cut from
  std::byte* slab_ = nullptr;              // what is left of the last one
  Index slab_left_ = 0;
  std::function<void(std::byte*)> told_;
};

/// The CUDA device behind the interface. Throws Error (usage) when it is another kind of device.
CudaDevice& as_cuda(Device& device);

}  // namespace annulus::cuda

#pragma once
#include <memory>
#include <string>

#include "annulus/kernel/kernel.hpp"
#include "app/context.hpp"
#include "app/job.hpp"

namespace annulus::app {

/// Where a rank computes and how its blocks travel there: the CPU and the job's own transport, or a GPU and NCCL or
/// MPI between GPUs (staged through host memory, unless MPI knows CUDA). All ranks choose the same.
class Accelerator {
 public:
  /// All ranks. bytes: what a rank needs on its device. Throws Error (usage) when --device or --transport cannot be had,
  /// and Error (fit) when the GPU has not enough memory; on all ranks together.
  Accelerator(const Settings& settings, const Job& job, const RankTools& tools, Index bytes);
  Accelerator(const Accelerator&) = delete;
  Accelerator& operator=(const Accelerator&) = delete;

  bool on_gpu() const { return gpu_ != nullptr; }
  Device& device() const { return on_gpu() ? *gpu_ : tools_.device; }
  Transport& transport() const {
    return recorded_ != nullptr ? *recorded_ : exchange_ != nullptr ? *exchange_ : tools_.transport;
  }
  /// For a kernel that computes here. Where NCCL moves blocks, it leaves NCCL its multiprocessors.
  KernelOptions kernel_options(int threads) const { return {threads, &device(), kernel_blocks_}; }
  /// "cpu", or the GPU's name.
  std::string name() const { return device().name(); }

 private:
  void take_gpu(const Settings& settings, const Job& job, Index bytes);
  const RankTools& tools_;
  std::unique_ptr<Device> gpu_, staging_;
  std::unique_ptr<Transport> exchange_, recorded_;
  int kernel_blocks_ = 0;
};

}  // namespace annulus::app

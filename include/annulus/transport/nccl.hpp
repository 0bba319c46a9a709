#pragma once
#include <memory>
#include <string>

#include "annulus/memory/cuda.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus {

/// Empty when NCCL's shared library can be loaded; else a phrase that says what is missing.
std::string nccl_refusal();
/// "2.28.9", or "" when it cannot be loaded.
std::string nccl_version();

/// Memory that NCCL's exchanges can use in place. Null functions when the library cannot be loaded.
CudaMemory nccl_memory();

/// Lets several processes, one rank each, share a GPU: a test aid, slow, over the loopback network. Sets environment
/// variables, and so must come before everything else of NCCL and before there are threads.
void let_nccl_share_a_gpu(Rank rank);

struct NcclOptions {
  double patience_seconds = 600;  ///< a wait that lasts longer fails with Error (communication)
  int most_blocks = 0;            ///< blocks of threads that NCCL may take from the computation; 0: NCCL's choice
  bool share_gpu = false;         ///< after let_nccl_share_a_gpu
  /// Exchange in place where all ranks' devices have nccl_memory: then all messages must lie in what the device gave out.
  bool register_memory = true;
};

/// NCCL between GPUs, one rank each. bootstrap: any transport between the same ranks, needed while this one is made and
/// by fail(); the device must be a GPU. All messages lie in the device's memory. Communication has a stream of its own,
/// of high priority: a batch waits for the work asked for before start(), and the work asked for after wait() for the
/// batch. All ranks make it together; it connects all of them at once. Throws Error (usage) when two ranks have the
/// same GPU.
std::unique_ptr<Transport> make_nccl_transport(Transport& bootstrap, Device& device, const NcclOptions& options = {});

}  // namespace annulus

#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/kernel/kernel.hpp"
#include "annulus/timeline/timeline.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus {
class InputFile;
}

namespace annulus::app {

class Context;
class ModelEvidence;
class Sequence;
class Settings;
struct Placement;
struct RankTools;
struct SequenceChoice;

/// All kernels, best first. `auto` takes the first that can run the problem.
std::span<const KernelRow> kernels();
/// Where the kernel of this name runs. Throws Error (usage) when there is none.
Place kernel_place(std::string_view name);
/// The kernel of this name for where the options' device is, or the best one for `auto`. Throws Error (usage) with the reason when it cannot run here.
std::unique_ptr<Kernel> make_kernel(std::string_view name, const Problem& problem, const KernelOptions& options);

/// The processes of an mpirun, when there are any and this build knows MPI.
class Processes {
 public:
  virtual ~Processes() = default;
  virtual Rank rank() const = 0;
  virtual int ranks() const = 0;
  virtual int ranks_per_node() const = 0;
  virtual int node_divisor() const = 0;
  virtual int node_rank() const = 0;
  /// Whether its messages may lie in the memory of a GPU.
  virtual bool moves_gpu_memory() const = 0;
  /// choice: of --transport. refusal: why `auto` did not take the one that reads neighbours' memory in place, if so.
  virtual std::unique_ptr<Transport> transport(double patience_seconds, const std::string& choice,
                                               std::string& refusal) = 0;
};
/// nullptr when this process was not started by mpirun (or srun). Throws Error when it was, but this build has no MPI.
std::unique_ptr<Processes> join_processes();

/// One GPU this process sees.
struct Gpu {
  std::string name;
  int major = 0, minor = 0;
  int multiprocessors = 0;
  Index bytes = 0;
};
/// Empty when this build and machine can compute on a GPU; else what is missing, as a phrase.
std::string cuda_missing();
std::vector<Gpu> gpu_list();
Index gpu_free_bytes(int gpu);
/// Versions of driver and runtime, or why there is nothing.
std::string cuda_text();
/// Empty when NCCL can be used; else what is missing.
std::string nccl_missing();
std::string nccl_text();
/// for_nccl: with memory that NCCL can exchange in place.
std::unique_ptr<Device> make_gpu(int gpu, bool for_nccl);
std::unique_ptr<Device> make_staging_memory();
/// Shows a timeline's spans to NVIDIA's profilers (NVTX ranges), on whatever device; nullptr in a build without CUDA.
Timeline::Watcher* profiler();
/// Before anything else of NCCL: lets the ranks of a node share a GPU.
void share_gpu_by_nccl(Rank rank);
struct ExchangeOptions {
  double patience_seconds = 600;
  int most_blocks = 0;
  bool share_gpu = false;
};
std::unique_ptr<Transport> make_gpu_exchange(Transport& bootstrap, Device& gpu, const ExchangeOptions& options);

/// "Open MPI v4.1.4", or why there is none.
std::string mpi_library();
bool has_audio();
/// make_audio_sequence. Throws Error (usage) when this build cannot read recordings.
std::unique_ptr<Sequence> make_recording_sequence(const SequenceChoice& choice);
bool has_threads();
/// Whether this build reads trained transformers.
bool has_checkpoints();
/// run_transformer_rank. Throws Error (usage) when this build cannot.
void run_checkpoint_rank(const Settings& settings, const Context& context, const Placement& place, RankTools& tools);
/// open_model_evidence. Throws Error (usage) when this build cannot.
std::unique_ptr<ModelEvidence> open_evidence(const InputFile& result, const std::string& folder,
                                             const std::vector<std::string>& inputs);

}  // namespace annulus::app

#include "app/backends.hpp"

#include <array>
#include <cstdlib>

#include "annulus/kernel/cpu.hpp"
#include "annulus/kernel/reference.hpp"
#include "app/config.hpp"
#include "app/job.hpp"
#include "app/model_run.hpp"
#include "app/model_verify.hpp"
#include "app/sequence.hpp"
#if ANNULUS_HAS_MPI
#include "annulus/transport/mpi.hpp"
#endif
#if ANNULUS_HAS_CUDA
#include "annulus/kernel/cuda.hpp"
#include "annulus/memory/cuda.hpp"
#endif
#if ANNULUS_HAS_NCCL
#include "annulus/transport/nccl.hpp"
#endif

namespace annulus::app {
namespace {

std::string refuse_f64(const Problem& problem) {
  return problem.type == DType::f64 ? "it computes in f32; f64 is for the reference kernel" : "";
}

// A row of the table for one tier of the tiled kernel.
template <const char* tier>
std::string tier_refusal(const Problem& problem, Place place) {
  if (place != Place::cpu) return "it runs on the CPU";
  const std::string reason = cpu_tier_refusal(tier);
  return reason.empty() ? refuse_f64(problem) : reason;
}
template <const char* tier>
std::unique_ptr<Kernel> make_tier(const Problem& problem, const KernelOptions& options) {
  return make_tiled_kernel(problem, options, tier);
}

constexpr char amx_bf16[] = "amx-bf16", amx_split[] = "amx-split", amx_fast[] = "amx-fast",
               avx512_bf16[] = "avx512-bf16", avx512[] = "avx512", avx2[] = "avx2", portable[] = "portable";

std::string reference_refusal(const Problem&, Place place) { return place == Place::cpu ? "" : "it runs on the CPU"; }
std::unique_ptr<Kernel> make_reference(const Problem& problem, const KernelOptions&) {
  return make_reference_kernel(problem, DType::f32);
}

std::string amx_refusal(const Problem& problem, Place place) {
  const std::string reason = tier_refusal<amx_bf16>(problem, place);
  return reason.empty() && problem.type != DType::bf16 ? "it is for bf16 inputs" : reason;
}
// Faster than f32 products on every processor that has them: 16 times as many products, of which it takes six.
template <const char* tier>
std::string split_refusal(const Problem& problem, Place place) {
  const std::string reason = tier_refusal<tier>(problem, place);
  return reason.empty() && problem.type == DType::bf16 ? "it is for f32 and f16 inputs" : reason;
}
std::string pairs_refusal(const Problem& problem, Place place) {
  std::string reason = tier_refusal<avx512_bf16>(problem, place);
  if (!reason.empty()) return reason;
  if (!cpu_pairs_pay()) return "its products of bf16 pairs are no faster than f32 ones on this processor";
  return problem.type == DType::bf16 ? "" : "it is for bf16 inputs";
}

#if ANNULUS_HAS_CUDA
std::string cuda_refusal_of(const Problem&, Place place) {
  return place == Place::cuda ? cuda_missing() : "it runs on a GPU";
}
std::string hopper_refusal(const Problem& problem, Place place) {
  if (std::string reason = cuda_refusal_of(problem, place); !reason.empty()) return reason;
  for (const CudaGpu& gpu : cuda_gpus())
    if (gpu.major != 9 || gpu.minor != 0)
      return sentence("it is for compute capability 9.0, but ", gpu.name, " has ", gpu.major, ".", gpu.minor);
  return cuda_wgmma_refusal(problem);
}
std::unique_ptr<Kernel> make_cuda_wgmma(const Problem& problem, const KernelOptions& options) {
  return make_cuda_wgmma_kernel(problem, *options.device, options.blocks);
}
std::string tensor_core_refusal(const Problem& problem, Place place) {
  const std::string reason = cuda_refusal_of(problem, place);
  return reason.empty() ? cuda_mma_refusal(problem) : reason;
}
std::unique_ptr<Kernel> make_cuda_mma(const Problem& problem, const KernelOptions& options) {
  return make_cuda_mma_kernel(problem, *options.device);
}
std::unique_ptr<Kernel> make_cuda_simt(const Problem& problem, const KernelOptions& options) {
  return make_cuda_simt_kernel(problem, *options.device);
}
#endif

const KernelRow table[] {
#if ANNULUS_HAS_CUDA
  {"cuda-simt", "plain f32 arithmetic on a GPU", cuda_refusal_of, make_cuda_simt, Place::cuda},
      // not yet judged by a GPU: only for those who name them
      {"cuda-mma", "tensor cores of compute capability 8.0 and later", tensor_core_refusal, make_cuda_mma, Place::cuda},
      {"cuda-wgmma", "asynchronous tensor cores of Hopper", hopper_refusal, make_cuda_wgmma, Place::cuda},
#endif
      {"tiled-amx-bf16", "blocked online softmax, AMX tiles", amx_refusal, make_tier<amx_bf16>},
      {"tiled-amx-split", "f32 and f16 as exact sums of bf16 terms, AMX tiles", split_refusal<amx_split>,
       make_tier<amx_split>},
      {"tiled-avx512-bf16", "blocked online softmax, AVX-512 with bf16 pairs", pairs_refusal, make_tier<avx512_bf16>},
      {"tiled-avx512", "blocked online softmax, AVX-512", tier_refusal<avx512>, make_tier<avx512>},
      {"tiled-avx2", "blocked online softmax, AVX2 and FMA", tier_refusal<avx2>, make_tier<avx2>},
      {"tiled-portable", "blocked online softmax, any processor", tier_refusal<portable>, make_tier<portable>},
      // coarser than f32 arithmetic: behind a kernel that takes everything, so only for those who name it, or ask for fast
      {"tiled-amx-fast", "f32 and f16 to 16 bits, AMX tiles; --kernel fast", split_refusal<amx_fast>,
       make_tier<amx_fast>},
      {"reference", "naive, float64 inside, one thread: the judge", reference_refusal, make_reference},
};

#if ANNULUS_HAS_MPI
class MpiProcesses final : public Processes {
 public:
  Rank rank() const override { return session_.rank(); }
  int ranks() const override { return session_.ranks(); }
  int ranks_per_node() const override { return session_.ranks_per_node(); }
  int node_divisor() const override { return session_.node_divisor(); }
  int node_rank() const override { return session_.node_rank(); }
  bool moves_gpu_memory() const override { return MpiSession::knows_cuda(); }
  std::unique_ptr<Transport> transport(double patience_seconds, const std::string& choice,
                                       std::string& refusal) override {
    if (choice == "shared" || (choice != "mpi" && session_.neighbours())) try {
        return make_shared_transport(session_, {patience_seconds});
      } catch (const Error& e) {
        require(choice != "shared", "--transport shared: ", e.what());
        refusal = sentence("ranks of a node cannot read one another's memory (", e.what(), "): MPI copies messages");
      }
    return make_mpi_transport(session_, {patience_seconds});
  }

 private:
  MpiSession session_;
};
#endif

// Set by the launchers that speak to MPI libraries; a program started by hand has none of them.
bool started_by_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"})
    if (std::getenv(name) != nullptr) return true;
  return false;
}

}  // namespace

std::span<const KernelRow> kernels() { return table; }

Place kernel_place(std::string_view name) {
  std::string names;
  for (const KernelRow& row : table) {
    if (name == row.name) return row.place;
    names += sentence(names.empty() ? "" : ", ", row.name);
  }
  throw Error(Failure::usage, sentence("there is no kernel '", name, "': the kernels are auto, fast, ", names));
}

std::unique_ptr<Kernel> make_kernel(std::string_view name, const Problem& problem, const KernelOptions& options) {
  const Place place = options.device != nullptr ? options.device->place() : Place::cpu;
  if (name == "fast") name = split_refusal<amx_fast>(problem, place).empty() ? "tiled-amx-fast" : "auto";
  std::string names, reasons;
  for (const KernelRow& row : table) {
    names += sentence(names.empty() ? "" : ", ", row.name);
    if (name != "auto" && name != row.name) continue;
    const std::string reason = row.refusal(problem, place);
    if (reason.empty()) return row.make(problem, options);
    reasons += sentence(reasons.empty() ? "" : "; ", row.name, ": ", reason);
  }
  require(!reasons.empty(), "there is no kernel '", name, "': the kernels are auto, fast, ", names);
  throw Error(Failure::usage, sentence("no kernel can run this here: ", reasons));
}

#if ANNULUS_HAS_MPI
std::unique_ptr<Processes> join_processes() {
  if (!started_by_launcher()) return nullptr;
  return std::make_unique<MpiProcesses>();
}
std::string mpi_library() { return MpiSession::library(); }
#else
std::unique_ptr<Processes> join_processes() {
  require(!started_by_launcher(), "this build has no MPI: start it without mpirun, with --ranks P for threads");
  return nullptr;
}
std::string mpi_library() { return "not compiled in"; }
#endif

#if ANNULUS_HAS_CUDA
std::string cuda_missing() { return cuda_refusal(); }
std::vector<Gpu> gpu_list() {
  std::vector<Gpu> gpus;
  for (const CudaGpu& gpu : cuda_gpus()) gpus.push_back({gpu.name, gpu.major, gpu.minor, gpu.multiprocessors, gpu.bytes});
  return gpus;
}
Index gpu_free_bytes(int gpu) { return cuda_free_bytes(gpu); }
std::string cuda_text() { return cuda_versions(); }
std::unique_ptr<Device> make_staging_memory() { return make_pinned_memory(); }
Timeline::Watcher* profiler() {
  struct Profiler final : Timeline::Watcher {
    void begin(std::string_view what, Index step) override {
      begin_profiler_range(std::string(what) + ", step " + std::to_string(step));
    }
    void end() override { end_profiler_range(); }
  };
  static Profiler ranges;  // has no state: ranks that are threads share it
  return &ranges;
}
#else
std::string cuda_missing() { return "this build has no CUDA"; }
std::vector<Gpu> gpu_list() { return {}; }
Index gpu_free_bytes(int) { return 0; }
std::string cuda_text() { return "not compiled in"; }
std::unique_ptr<Device> make_staging_memory() { return std::make_unique<CpuDevice>(); }
Timeline::Watcher* profiler() { return nullptr; }
#endif

#if ANNULUS_HAS_NCCL
std::string nccl_missing() { return nccl_refusal(); }
std::string nccl_text() { return nccl_missing().empty() ? nccl_version() : nccl_missing(); }
std::unique_ptr<Device> make_gpu(int gpu, bool for_nccl) {
  return make_cuda_device(gpu, for_nccl ? nccl_memory() : CudaMemory{});
}
void share_gpu_by_nccl(Rank rank) { let_nccl_share_a_gpu(rank); }
std::unique_ptr<Transport> make_gpu_exchange(Transport& bootstrap, Device& gpu, const ExchangeOptions& options) {
  return make_nccl_transport(bootstrap, gpu, {options.patience_seconds, options.most_blocks, options.share_gpu});
}
#else
std::string nccl_missing() { return "this build has no NCCL"; }
std::string nccl_text() { return "not compiled in"; }
#if ANNULUS_HAS_CUDA
std::unique_ptr<Device> make_gpu(int gpu, bool) { return make_cuda_device(gpu); }
#else
std::unique_ptr<Device> make_gpu(int, bool) { throw Error(Failure::usage, cuda_missing()); }
#endif
void share_gpu_by_nccl(Rank) {}
std::unique_ptr<Transport> make_gpu_exchange(Transport&, Device&, const ExchangeOptions&) {
  throw Error(Failure::usage, nccl_missing());
}
#endif

bool has_audio() { return ANNULUS_HAS_AUDIO != 0; }
#if ANNULUS_HAS_AUDIO
std::unique_ptr<Sequence> make_recording_sequence(const SequenceChoice& choice) { return make_audio_sequence(choice); }
#else
std::unique_ptr<Sequence> make_recording_sequence(const SequenceChoice& choice) {
  throw Error(Failure::usage, sentence("this build cannot read recordings such as ", choice.files.front(),
                                       ": build with libsndfile, libsoxr and kissfft"));
}
#endif
bool has_checkpoints() { return ANNULUS_HAS_CHECKPOINT != 0; }
#if ANNULUS_HAS_CHECKPOINT
void run_checkpoint_rank(const Settings& settings, const Context& context, const Placement& place, RankTools& tools) {
  run_transformer_rank(settings, context, place, tools);
}
std::unique_ptr<ModelEvidence> open_evidence(const InputFile& result, const std::string& folder,
                                             const std::vector<std::string>& inputs) {
  return open_model_evidence(result, folder, inputs);
}
#else
namespace {
[[noreturn]] void refuse_model(const std::string& folder) {
  throw Error(Failure::usage, sentence("this build cannot read the trained model ", folder,
                                       ": build with oneDNN, PCRE2 and utf8proc"));
}
}  // namespace
void run_checkpoint_rank(const Settings& settings, const Context&, const Placement&, RankTools&) {
  refuse_model(settings.text("model"));
}
std::unique_ptr<ModelEvidence> open_evidence(const InputFile&, const std::string& folder,
                                             const std::vector<std::string>&) {
  refuse_model(folder);
}
#endif
bool has_threads() { return ANNULUS_HAS_OPENMP != 0; }

}  // namespace annulus::app

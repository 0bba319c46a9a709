#include "app/backends.hpp"

#include <array>
#include <cstdlib>

#include "annulus/kernel/cpu.hpp"
#include "annulus/kernel/reference.hpp"
#include "app/sequence.hpp"
#if ANNULUS_HAS_MPI
#include "annulus/transport/mpi.hpp"
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

constexpr char avx512_bf16[] = "avx512-bf16", avx512[] = "avx512", avx2[] = "avx2", portable[] = "portable";

std::string reference_refusal(const Problem&, Place place) { return place == Place::cpu ? "" : "it runs on the CPU"; }
std::unique_ptr<Kernel> make_reference(const Problem& problem, const KernelOptions&) {
  return make_reference_kernel(problem, DType::f32);
}

std::string pairs_refusal(const Problem& problem, Place place) {
  const std::string reason = tier_refusal<avx512_bf16>(problem, place);
  if (!reason.empty()) return reason;
  if (!cpu_pairs_pay()) return "its products of bf16 pairs are no faster than f32 ones on this processor";
  return problem.type == DType::bf16 ? "" : "it is for bf16 inputs";
}

constexpr std::array<KernelRow, 5> table{{
    {"tiled-avx512-bf16", "blocked online softmax, AVX-512 with bf16 pairs", pairs_refusal, make_tier<avx512_bf16>},
    {"tiled-avx512", "blocked online softmax, AVX-512", tier_refusal<avx512>, make_tier<avx512>},
    {"tiled-avx2", "blocked online softmax, AVX2 and FMA", tier_refusal<avx2>, make_tier<avx2>},
    {"tiled-portable", "blocked online softmax, any processor", tier_refusal<portable>, make_tier<portable>},
    {"reference", "naive, float64 inside, one thread: the judge", reference_refusal, make_reference},
}};

#if ANNULUS_HAS_MPI
class MpiProcesses final : public Processes {
 public:
  Rank rank() const override { return session_.rank(); }
  int ranks() const override { return session_.ranks(); }
  int ranks_per_node() const override { return session_.ranks_per_node(); }
  int node_divisor() const override { return session_.node_divisor(); }
  std::unique_ptr<Transport> transport(double patience_seconds) override {
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

std::unique_ptr<Kernel> make_kernel(std::string_view name, const Problem& problem, const KernelOptions& options) {
  std::string names, reasons;
  for (const KernelRow& row : table) {
    names += sentence(names.empty() ? "" : ", ", row.name);
    if (name != "auto" && name != row.name) continue;
    const std::string reason = row.refusal(problem, Place::cpu);
    if (reason.empty()) return row.make(problem, options);
    reasons += sentence(reasons.empty() ? "" : "; ", row.name, ": ", reason);
  }
  require(!reasons.empty(), "there is no kernel '", name, "': the kernels are ", names);
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

bool has_audio() { return ANNULUS_HAS_AUDIO != 0; }
#if ANNULUS_HAS_AUDIO
std::unique_ptr<Sequence> make_recording_sequence(const SequenceChoice& choice) { return make_audio_sequence(choice); }
#else
std::unique_ptr<Sequence> make_recording_sequence(const SequenceChoice& choice) {
  throw Error(Failure::usage, sentence("this build cannot read recordings such as ", choice.files.front(),
                                       ": build with libsndfile, libsoxr and kissfft"));
}
#endif
bool has_threads() { return ANNULUS_HAS_OPENMP != 0; }

}  // namespace annulus::app

#include "app/accelerator.hpp"

#include <algorithm>

#include "annulus/base/error.hpp"
#include "annulus/engine/heads.hpp"
#include "annulus/engine/recorded.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/transport/collectives.hpp"
#include "annulus/transport/staged.hpp"
#include "app/backends.hpp"

namespace annulus::app {
namespace {

// Why this rank cannot compute on a GPU; empty when it can.
std::string gpu_refusal(const Settings& settings, const RankTools& tools) {
  std::string reason = cuda_missing();
  const auto gpus = static_cast<int>(gpu_list().size());
  if (reason.empty() && !settings.flag("share-gpu") && tools.node_rank >= gpus)
    reason = sentence("it is rank ", tools.node_rank + 1, " of a node with ", gpus, " GPU", gpus == 1 ? "" : "s",
                      ": start one rank per GPU (or share it with --share-gpu, for tests)");
  return reason;
}

// Blocks of threads that NCCL needs to bring a block of keys while the block before is computed: the kernel does
// F = 5e14 operations per second, so a rank with n tokens and g query heads per key/value head asks for F / (n g) bytes
// per second, and one block of threads moves about 15e9.
int nccl_blocks(const Settings& settings, const Job& job) {
  if (settings.has("nccl-blocks")) return narrow(settings.count("nccl-blocks", 1));
  const double tokens = static_cast<double>(std::max<Index>(1, job.schedule.keys.largest()));
  const double needed = 5e14 / (tokens * static_cast<double>(job.shape.group())) / 15e9;
  return static_cast<int>(std::clamp(needed + 1, 2.0, 32.0));
}

}  // namespace

Accelerator::Accelerator(const Settings& settings, const Job& job, const RankTools& tools, Index bytes)
    : tools_(tools) {
  tools.device.use_threads(job.place.threads);
  const std::string &device = settings.text("device"), &transport = settings.text("transport"),
                    &kernel = settings.text("kernel");
  require(transport != "nccl" || device != "cpu", "--transport nccl moves data between GPUs: --device is cpu");
  const bool wanted = device == "cuda" || transport == "nccl";
  bool cpu_kernel = false;
  const std::string reason = gpu_refusal(settings, tools);
  together(tools.transport, [&] {
    cpu_kernel = kernel != "auto" && kernel != "fast" && kernel_place(kernel) == Place::cpu;
    require(!wanted || reason.empty(),
            device == "cuda" ? settings.name_of("device") + " cuda" : settings.name_of("transport") + " nccl",
            " needs a GPU for every rank: ", reason);
    require(!wanted || !cpu_kernel, settings.name_of("kernel"), " ", kernel, " runs on the CPU");
    require(transport != "nccl" || nccl_missing().empty(), settings.name_of("transport"), " nccl: ", nccl_missing());
  });
  double unable = device == "cpu" || cpu_kernel || !reason.empty() ? 1 : 0;
  all_max(tools.transport, {&unable, 1});
  if (unable == 0) take_gpu(settings, job, bytes);
}

void Accelerator::take_gpu(const Settings& settings, const Job& job, Index bytes) {
  const auto gpus = gpu_list();
  const bool shared = settings.flag("share-gpu");
  const int gpu = tools_.node_rank % static_cast<int>(gpus.size());
  const std::string& transport = settings.text("transport");
  // ranks that are threads cannot share a GPU by NCCL
  const bool by_itself = transport == "auto" && nccl_missing().empty() && (!shared || tools_.own_process);
  const bool nccl = job.place.ranks > 1 && (transport == "nccl" || by_itself);
  together(tools_.transport, [&] {
    const auto sharers = static_cast<Index>(ceil_div(job.place.ranks_per_node, static_cast<Index>(gpus.size())));
    const Index available = gpu_free_bytes(gpu) / (shared ? sharers : 1);
    const Index tokens = job.schedule.mask.queries();
    const double fits = static_cast<double>(available) / static_cast<double>(std::max<Index>(1, bytes));
    require<Failure::fit>(bytes <= available, "it does not fit: a rank needs ", bytes_text(static_cast<double>(bytes)),
                          " on its GPU, and ", bytes_text(static_cast<double>(available)), " are free; about ",
                          grouped(static_cast<Index>(static_cast<double>(tokens) * fits)), " of ", grouped(tokens),
                          " tokens would fit");
    require(!nccl || !shared || tools_.own_process, "--share-gpu with nccl needs a process per rank: use mpirun");
    if (nccl && shared) share_gpu_by_nccl(tools_.transport.rank());
    gpu_ = make_gpu(gpu, nccl);
    if (!nccl && !tools_.moves_gpu_memory) staging_ = make_staging_memory();
  });
  if (nccl) {
    const int blocks = nccl_blocks(settings, job);
    exchange_ = make_gpu_exchange(tools_.transport, *gpu_, {settings.number("timeout"), blocks, shared});
    kernel_blocks_ = std::max(1, gpus[static_cast<std::size_t>(gpu)].multiprocessors - blocks);
    // what the others move passes through the job's own transport, which is recorded by whoever wants that
    recorded_ = std::make_unique<RecordedTransport>(*exchange_, tools_.timeline);
  } else if (tools_.moves_gpu_memory) {
    exchange_ = make_direct_transport(tools_.transport, *gpu_);
  } else {
    exchange_ = make_staged_transport(tools_.transport, *gpu_, *staging_);
  }
}

}  // namespace annulus::app

#pragma once
#include <memory>
#include <string>

#include "annulus/engine/host_attention.hpp"
#include "annulus/kernel/kernel.hpp"
#include "annulus/store/draft.hpp"
#include "app/accelerator.hpp"
#include "app/context.hpp"
#include "app/job.hpp"
#include "app/progress.hpp"
#include "app/stop.hpp"
#include "app/traces.hpp"

namespace annulus::app {

/// What a command does with a job.
struct Passes {
  bool observe = false, backward = false;
  Index extra_bytes = 0;  ///< what a rank needs besides (traces)
  Progress* progress = nullptr;  ///< of a longer work that this is a part of; its units: query rows x keys x query heads
  /// How often every pair is visited, for the ETA.
  Index visits() const { return 1 + (observe ? 1 : 0) + (backward ? 3 : 0); }
};

/// What the engine computes between two looks at the exchange with a kernel that does not pause by itself; a GPU works on its
/// own while its exchange does the same.
double operations_per_batch(bool on_gpu, int threads);

/// One rank's engine for a job, with its kernel and progress: what attend and run have in common.
class Compute {
 public:
  /// All ranks.
  Compute(const Settings& settings, const Job& job, RankTools& tools, const Passes& passes);
  /// Overwrites out and lse (f32). All ranks; throws when the inputs hold infinities that make a result not a number.
  void forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse);
  void observe(const Rows& q, const Rows& k, const Rows& lse, Traces& traces);
  void backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                const Gradients& into);
  /// All passes are done: ends the progress display.
  void finish() { progress().finish(); }
  std::string kernel() const { return std::string(kernel_->name()); }
  std::string device() const { return accelerator_.name(); }
  std::string transport() const { return std::string(accelerator_.transport().name()); }
  /// "tiled-avx2", or "cuda-simt on cuda:0 NAME, nccl".
  std::string description() const;
  /// What --hardware predicted of the passes and what they took on this rank, as a line to print and as root attributes. Nothing
  /// without --hardware.
  std::string compare_with_prediction(const Settings& settings, const Context& context, Draft& draft) const;

 private:
  /// Of the last call of each pass.
  struct Taken {
    double forward = 0, backward = 0;
  };
  Machine machine();
  Progress& progress() { return passes_.progress != nullptr ? *passes_.progress : progress_; }
  const Job& job_;
  RankTools& tools_;
  Passes passes_;
  Accelerator accelerator_;
  StoppableTransport transport_;
  std::unique_ptr<Kernel> kernel_;
  HostAttention attention_;
  Progress progress_;
  Taken seconds_;
};

/// Root attributes every result has: versions, command line, configuration, plan, mask, scale, dtype.
void describe_result(Draft& draft, const Settings& settings, const Context& context, const Job& job,
                     const std::string& schema, const Compute& compute);

/// Sends the lead's layout to everybody.
Layout share_layout(Transport& transport, const Layout& mine);

/// Throws Error (file) naming the first element that is NaN. rows: those at the positions of the runs from the `first` on.
void check_numbers(const Rows& rows, Index first, const std::string& what, std::span<const Run> runs);

}  // namespace annulus::app

#pragma once
#include <memory>
#include <string>

#include "annulus/engine/attention.hpp"
#include "app/accelerator.hpp"
#include "app/bench.hpp"
#include "app/stop.hpp"

namespace annulus::app {

struct PassChoice {
  bool backward = false;
  TraceChoice traces = {};  ///< collected after the pass, from new ones each time; on CPUs
  /// Called now and then within a pass of a single rank; several stop by themselves when any is asked to.
  std::function<void()> pause;
  std::optional<Plan> plan = {};  ///< if not the schedule's
};

/// One rank's engine with synthetic inputs, ready to be timed.
class BenchPass {
 public:
  /// accelerator: of the same job, which outlives this.
  BenchPass(const Settings& settings, const Job& job, RankTools& tools, const Accelerator& accelerator,
            const PassChoice& choice);
  /// What a backward pass needs of the forward pass. All ranks.
  void prepare();
  /// The pass itself. All ranks.
  void run();
  std::string kernel() const { return std::string(kernel_->name()); }

  Checked check(const Job& job, Rank rank, Index samples) const;

 private:
  struct Tensors {
    Array q, block, dout, out, lse, dq, dblock;
    KeyValue kv, dkv;
  };
  static Tensors make_tensors(const Job& job, const Accelerator& accelerator, bool backward);
  bool backward_;
  TraceChoice traces_;
  const Job& job_;
  RankTools tools_;
  Device& device_;
  StoppableTransport transport_;
  std::unique_ptr<Kernel> kernel_;
  Tensors tensors_;
  Attention attention_;
};

/// 2 x visible pairs x query heads x (channels + value channels), 2.5 times that for backward, and 2 x pairs x heads x channels
/// for traces.
double pass_operations(const Job& job, const Case& c);

}  // namespace annulus::app

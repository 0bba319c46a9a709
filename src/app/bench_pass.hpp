#pragma once
#include <memory>
#include <string>

#include "annulus/engine/attention.hpp"
#include "app/accelerator.hpp"
#include "app/bench.hpp"
#include "app/stop.hpp"

namespace annulus::app {

/// One rank's engine with synthetic inputs, ready to be timed.
class BenchPass {
 public:
  /// accelerator: of the same job. pause: called now and then within a pass of a single rank; several stop by themselves
  /// when any is asked to.
  BenchPass(const Settings& settings, const Job& job, RankTools& tools, const Accelerator& accelerator,
            const std::function<void()>& pause, bool backward);
  /// What a backward pass needs of the forward pass. All ranks.
  void prepare();
  /// The pass itself. All ranks.
  void run();
  std::string kernel() const { return std::string(kernel_->name()); }

  /// The largest error of sampled own rows against float64: as it is, and over what `annulus verify` allows.
  struct Checked {
    double over_tolerance = 0, error = 0;
  };
  Checked check(const Job& job, Rank rank, Index samples) const;

 private:
  struct Tensors {
    Array q, block, dout, out, lse, dq, dblock;
    KeyValue kv, dkv;
  };
  static Tensors make_tensors(const Job& job, const Accelerator& accelerator, bool backward);
  bool backward_;
  Device& device_;
  StoppableTransport transport_;
  std::unique_ptr<Kernel> kernel_;
  Tensors tensors_;
  Attention attention_;
};

/// 2 x visible pairs x query heads x (channels + value channels), 2.5 times that for backward.
double pass_operations(const Job& job, bool backward);

}  // namespace annulus::app

#pragma once
#include <memory>
#include <string>

#include "annulus/engine/attention.hpp"
#include "annulus/kernel/kernel.hpp"
#include "annulus/store/draft.hpp"
#include "app/context.hpp"
#include "app/job.hpp"
#include "app/progress.hpp"
#include "app/stop.hpp"
#include "app/traces.hpp"

namespace annulus::app {

/// One rank's engine for a job, with its kernel and progress: what attend and run have in common.
class Compute {
 public:
  /// All ranks. passes: how often every pair is visited (forward, observe, backward), for the ETA.
  Compute(const Settings& settings, const Job& job, RankTools& tools, int passes);
  /// Overwrites out and lse (f32). All ranks; throws when the inputs hold infinities that make a result not a number.
  void forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse);
  void observe(const Rows& q, const Rows& k, const Rows& lse, Traces& traces);
  void backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                const Gradients& into);
  /// All passes are done: ends the progress display.
  void finish() { progress_.finish(); }
  std::string kernel() const { return std::string(kernel_->name()); }

 private:
  Machine machine();
  const Job& job_;
  RankTools& tools_;
  StoppableTransport transport_;
  std::unique_ptr<Kernel> kernel_;
  Attention attention_;
  Progress progress_;
};

/// Root attributes every result has: versions, command line, configuration, plan, mask, scale, dtype.
void describe_result(Draft& draft, const Settings& settings, const Context& context, const Job& job,
                     const std::string& schema, const std::string& kernel);

/// Sends the lead's layout to everybody.
Layout share_layout(Transport& transport, const Layout& mine);

/// Throws Error (file) naming the first element that is NaN. positions: of the rows.
void check_numbers(const Rows& rows, const std::string& what, std::span<const Run> runs);

/// Before anything is computed: throws Error (usage) when an output would replace an input or another output.
void check_outputs(const Settings& settings, const std::vector<std::string>& inputs);

}  // namespace annulus::app

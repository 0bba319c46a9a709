#pragma once
#include <functional>
#include <optional>

#include "annulus/engine/carousel.hpp"
#include "annulus/engine/heads.hpp"
#include "annulus/kernel/kernel.hpp"
#include "annulus/plan/plan.hpp"

namespace annulus {

/// What an engine works with; all borrowed and outliving it.
struct Machine {
  Device& device;
  Kernel& kernel;  ///< made for problem_of(shape, grid, lane, mask.query_shift())
  Transport& transport;
  Timeline& timeline;
  /// Work between two looks at the exchange, in floating-point operations, where the kernel does not pause by itself.
  double operations_per_batch = 2e9;
  /// Told how many (query, key, head) triples were just computed; for progress. May be empty.
  std::function<void(Index)> progress = {};
};

/// One rank's part of a distributed attention. All ranks of the schedule call the same functions in the same order.
/// Memory: two visiting blocks, whatever the number of ranks; nothing is kept per step. Where queries travel, traces (and
/// gradients of the tree) are those of a ring of K/V blocks over the same shards.
///
///   q [own query rows, query_heads, channels]   k [own key rows, kv_heads, channels]   v [.., kv_heads,
///   value_channels] own rows: schedule.queries / schedule.keys of this rank. Any pitch; AttentionShape::type.
/// Results are in the kernel's accumulator type. Throws Error (usage) when rows have another shape or type, or do not lie in
/// the device's memory, aligned to their elements.
class Attention {
 public:
  /// The schedule is borrowed, as the machine is: both must outlive it. Throws Error (usage) when schedule, shape, kernel and
  /// transport do not fit together.
  Attention(const Schedule& schedule, const AttentionShape& shape, const Machine& machine);
  Attention(Schedule&&, const AttentionShape&, const Machine&) = delete;
  /// With a plan made before: schedule.plan_of(the rank's seat).
  Attention(const Schedule& schedule, Plan plan, const AttentionShape& shape, const Machine& machine);
  Attention(Schedule&&, Plan, const AttentionShape&, const Machine&) = delete;

  /// out [own rows, query_heads, value_channels], lse [own rows, query_heads, 1] (natural log; -inf where nothing is
  /// seen, and out = 0 there). Overwrites both; dense.
  void forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse);

  /// Gradients of sum(dout * out). out, lse: as forward wrote them (not rounded). into: overwritten; dq, dk, dv shaped
  /// as q, k, v. dk and dv that lie side by side (see views below) are summed up there, without a copy.
  void backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                const Gradients& into);

  /// Attention statistics with the final lse (accumulator type). into: as in Observation for own rows and all query
  /// heads, already neutral (zeros; -inf and -1 for top); received counts own keys. block_mass holds this rank's
  /// queries only: sum it over ranks.
  void observe(const Rows& q, const Rows& k, const Rows& lse, const Observation& into);

  /// What this rank does.
  const Plan& plan() const { return plan_; }

  /// Rows of K and V side by side, [tokens, 1, kv_heads * (channels + value_channels)], as they travel. K and V that
  /// the caller already keeps in such rows are not copied; others are, where another rank is given them.
  static KeyValue views(const Rows& block, Index kv_heads, Index channels, Index value_channels);

 private:
  struct Local;  // what this rank's lane computes: rows of its seat, heads of its share
  Local localise(const Rows& q, const KeyValue& kv, bool leaves);
  KeyValue keys_of(const Local& local, const Step& step, const Rows& block) const;
  void check_rows(const char* name, const Rows& rows, DType type, Index tokens, Index heads, Index channels) const;
  void check_queries(const char* name, const Rows& rows, DType type, Index channels) const;
  void check_keys(const char* name, const Rows& rows, DType type, Index channels) const;
  void forward_queries(Local& local, const Rows& out, const Rows& lse);
  void pass_queries(const Rows& q, const KeyValue& kv, const Rows& own);
  void merge_queries(const Rows& q, const KeyValue& kv, const Rows& own);
  void backward_keys(const Local& local, const Saved& saved, const Rows& dq, const Rows& sums);
  void backward_queries(const Local& local, const Saved& saved, const Rows& dq, const Rows& sums);
  const Plan& ring_plan();  // K/V blocks travel whatever the strategy: traces, and gradients of the tree
  template <class Compute>
  void in_batches(const Step& step, double operations_per_pair, Pending& pending, const Compute& compute);
  template <class Compute>
  void compute_step(const Step& step, double operations_per_pair, Pending& pending, const Compute& compute);
  void forward_step(const Step& step, Pending& pending, const Rows& q, const KeyValue& kv, const Partial& into,
                    bool last = false);
  void finish(const Partial& partial);  // with lse in place of top

  const Schedule& schedule_;
  Plan plan_;
  std::optional<Plan> ring_plan_;
  AttentionShape shape_;
  Machine machine_;
  Rank seat_;
  Lane lane_;
  std::vector<Range> query_shares_, kv_shares_;  // by lane
  std::optional<HeadExchange> query_exchange_, key_exchange_;
};

}  // namespace annulus

#pragma once
#include "annulus/engine/attention.hpp"

namespace annulus {

/// Attention on any device for rows in host memory: they are copied to the device, and the results back. On the CPU
/// nothing is copied. The functions are those of Attention, with all rows and spans in host memory.
class HostAttention {
 public:
  /// The schedule is borrowed: it must outlive it.
  HostAttention(const Schedule& schedule, const AttentionShape& shape, const Machine& machine);
  HostAttention(Schedule&&, const AttentionShape&, const Machine&) = delete;
  void forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse);
  void backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                const Gradients& into);
  void observe(const Rows& q, const Rows& k, const Rows& lse, const Observation& into);

  const Plan& plan() const { return attention_.plan(); }

 private:
  bool on_host() const { return device_.place() == Place::cpu; }
  Array uploaded(const Rows& host) const;
  Array block_for(const Rows& k, const Rows& v) const;  // K and V, or their gradients, side by side; uninitialised
  static KeyValue halves(const Rows& block, const Rows& k, const Rows& v);
  Array uploaded(const KeyValue& host) const;
  Array alike(const Rows& host) const;  // uninitialised
  Device& device_;
  Attention attention_;
};

}  // namespace annulus

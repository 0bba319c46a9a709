#pragma once
#include "annulus/engine/attention.hpp"

namespace annulus {

/// Attention on any device for rows in host memory: they are copied to the device, and the results back. On the CPU
/// nothing is copied. The functions are those of Attention, with all rows and spans in host memory.
class HostAttention {
 public:
  HostAttention(const Schedule& schedule, const AttentionShape& shape, const Machine& machine);
  void forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse);
  void backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                const Gradients& into);
  void observe(const Rows& q, const Rows& k, const Rows& lse, const Observation& into);

  /// Bytes of device memory a rank of the job needs for its own rows, beside what the engine itself takes.
  static Index device_bytes(const Schedule& schedule, const AttentionShape& shape, Rank rank, bool backward);

 private:
  bool on_host() const { return device_.place() == Place::cpu; }
  Array uploaded(const Rows& host) const;
  Array alike(const Rows& host) const;  // uninitialised
  Device& device_;
  AttentionShape shape_;
  Attention attention_;
};

}  // namespace annulus

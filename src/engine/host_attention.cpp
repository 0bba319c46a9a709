#include "annulus/engine/host_attention.hpp"

#include <utility>
#include <vector>

namespace annulus {
namespace {

// 64-bit values of any kind as rows, so that devices can copy them.
template <class T>
Rows as_rows(std::span<T> values) {
  static_assert(sizeof(T) == sizeof(double));
  return dense_rows(values.data(), DType::f64, static_cast<Index>(values.size()), 1, 1);
}

template <class T>
std::span<T> as_span(const Rows& rows) {
  return {reinterpret_cast<T*>(rows.data), static_cast<std::size_t>(rows.tokens)};
}

}  // namespace

HostAttention::HostAttention(const Schedule& schedule, const AttentionShape& shape, const Machine& machine)
    : device_(machine.device), attention_(schedule, shape, machine) {}

Array HostAttention::alike(const Rows& host) const {
  return {device_, host.type, host.tokens, host.heads, host.channels};
}

Array HostAttention::uploaded(const Rows& host) const {
  check_layout("rows in host memory", host);
  Array there = alike(host);
  device_.copy_rows(host, there);
  return there;
}

Array HostAttention::block_for(const Rows& k, const Rows& v) const {
  return {device_, k.type, k.tokens, 1, k.heads * k.channels + v.heads * v.channels};
}

KeyValue HostAttention::halves(const Rows& block, const Rows& k, const Rows& v) {
  return Attention::views(block, k.heads, k.channels, v.channels);
}

Array HostAttention::uploaded(const KeyValue& host) const {
  check_layout("k in host memory", host.k);
  check_layout("v in host memory", host.v);
  Array block = block_for(host.k, host.v);
  const KeyValue there = halves(block, host.k, host.v);
  device_.copy_rows(host.k, there.k);
  device_.copy_rows(host.v, there.v);
  return block;
}

void HostAttention::forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse) {
  if (on_host()) return attention_.forward(q, kv, out, lse);
  const Array there_q = uploaded(q), block = uploaded(kv), there_out = alike(out), there_lse = alike(lse);
  attention_.forward(there_q, halves(block, kv.k, kv.v), there_out, there_lse);
  device_.copy_rows(there_out, out);
  device_.copy_rows(there_lse, lse);
}

void HostAttention::backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                             const Gradients& into) {
  if (on_host()) return attention_.backward(q, kv, dout, out, lse, into);
  const Array there_q = uploaded(q), block = uploaded(kv), there_dout = uploaded(dout), there_out = uploaded(out),
              there_lse = uploaded(lse), dq = alike(into.dq), sums = block_for(into.dk, into.dv);
  const KeyValue dkv = halves(sums, into.dk, into.dv);
  attention_.backward(there_q, halves(block, kv.k, kv.v), there_dout, there_out, there_lse, {dq, dkv.k, dkv.v});
  device_.copy_rows(dq, into.dq);
  device_.copy_rows(dkv.k, into.dk);
  device_.copy_rows(dkv.v, into.dv);
}

void HostAttention::observe(const Rows& q, const Rows& k, const Rows& lse, const Observation& into) {
  if (on_host()) return attention_.observe(q, k, lse, into);
  const Array there_q = uploaded(q), there_k = uploaded(k), there_lse = uploaded(lse);
  Observation there = into;
  std::vector<std::pair<Array, Rows>> way_back;
  const auto mirror = [&](const Rows& host) {
    way_back.emplace_back(uploaded(host), host);
    return way_back.back().first.rows();
  };
  for (Rows* rows : {&there.entropy, &there.max_probability, &there.sink_mass, &there.mean_distance, &there.received,
                     &there.top_score})
    if (!rows->absent()) *rows = mirror(*rows);
  if (!into.top_index.empty()) there.top_index = as_span<Index>(mirror(as_rows(into.top_index)));
  if (!into.block_mass.empty()) there.block_mass = as_span<double>(mirror(as_rows(into.block_mass)));
  attention_.observe(there_q, there_k, there_lse, there);
  for (const auto& [array, host] : way_back) device_.copy_rows(array, host);
}

}  // namespace annulus

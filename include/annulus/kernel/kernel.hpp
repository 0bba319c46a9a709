#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "annulus/geometry/range.hpp"
#include "annulus/memory/device.hpp"

namespace annulus {

/// What a kernel is made for: the part of the heads that one rank computes.
struct Problem {
  Index query_heads = 1, kv_heads = 1;
  Index channels = 64, value_channels = 64;
  Index group = 1;          ///< query heads per key/value head (GQA), before heads were shared out over ranks
  Index phase = 0;          ///< place of the first query head inside its group
  DType type = DType::f32;  ///< of q, k, v and dout
  double softmax_scale = 1;
  Index query_shift = 0;  ///< keys - queries: query i stands at position i + query_shift (distances in traces)

  constexpr Index kv_head(Index query_head) const { return (query_head + phase) / group; }
  bool operator==(const Problem&) const = default;
};

/// k: [keys, kv_heads, channels], v: [keys, kv_heads, value_channels]; any pitch. v may be absent for observe.
struct KeyValue {
  Rows k, v;
};

/// The attention of some rows over the keys met so far, not yet normalised: with s the scaled scores,
///   out = sum_j exp(s_j - top) v_j,   sum = sum_j exp(s_j - top),   top any reference that keeps both finite.
/// out [rows, query_heads, value_channels]; top, sum [rows, query_heads, 1]; in the kernel's accumulator type.
/// Identity: out = 0, sum = 0, top = -inf. So nothing is merged, and nothing rounded to 16 bits, between ring steps.
struct Partial {
  Rows out, top, sum;
};

/// What backward needs of the forward pass: q, dout in Problem::type; lse (natural log, -inf where nothing was seen)
/// and delta = rowsum(dout * out) [rows, query_heads, 1] in the accumulator type.
struct Saved {
  Rows q, dout, lse, delta;
};

/// Accumulated into, in the accumulator type: dq [rows, query_heads, channels], dk and dv as k and v (summed over the
/// query heads of a group); any pitch.
struct Gradients {
  Rows dq, dk, dv;
};

/// Exact attention statistics, accumulated into, with p = exp(s - lse). Absent rows are not wanted. Everything lives
/// where the kernel runs, the spans included.
struct Observation {
  Rows entropy;                ///< [rows, query_heads, 1]  sum_j p_j (lse - s_j), in nats
  Rows max_probability;        ///< [rows, query_heads, 1]
  Rows sink_mass;              ///< [rows, query_heads, 1]  mass on the first sink_tokens keys
  Rows mean_distance;          ///< [rows, query_heads, 1]  sum_j p_j |key - query position|, in tokens
  Rows received;               ///< [keys, query_heads, 1]  mass each key of the present block receives from these rows
  Rows top_score;              ///< [rows, query_heads, top_k]  largest scores s, descending; -inf where unused
  std::span<Index> top_index;  ///< same shape as top_score, dense: global keys, ties by smaller key; -1 where unused
  std::span<double> block_mass;  ///< [query_heads, query_blocks, key_blocks]  mass between blocks of tokens
  Index sink_tokens = 4;
  Index block_tokens = 1;  ///< tokens per block of the map, queries and keys alike
  Index key_blocks = 1, query_blocks = 1;
};

/// One tile of attention on one device. Accumulates into what it is given; tiles of one call are disjoint, but may
/// share rows. One rank calls a kernel from one thread at a time; the kernel may use several threads inside. The same
/// call gives the same bits, whatever the number of threads.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual std::string_view name() const = 0;
  virtual const Problem& problem() const = 0;
  /// f32, or f64 in the reference: the type of partials, lse, delta and gradients.
  virtual DType accumulator() const = 0;
  virtual void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) = 0;
  virtual void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) = 0;
  virtual void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
                       const Observation& into) = 0;

  /// forward, and then finish with lse in place of into.top: in one pass over the rows where the kernel can.
  virtual void forward_and_finish(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into);

  /// Called with the share of a call's work that is done, now and then while it is computed, by the thread that called: to
  /// look after an exchange, say. If it throws, so does the call, and what it accumulated into is of no further use.
  using Pause = std::function<void(double)>;
  /// Makes forward, backward and observe pause so; empty: no longer. False: this kernel does not, and wants long work in
  /// parts.
  virtual bool pause_with(const Pause& /*pause*/) { return false; }

  /// As the functions of these names in partial.hpp, where the rows live; on the CPU they are those functions, but that a
  /// kernel may leave out as it is in reset if it does not read out of rows whose top is -inf.
  virtual void reset(const Partial& partial);
  virtual void merge(const Partial& from, const Partial& into);
  virtual void finish(const Partial& partial, const Rows& lse);
  virtual void row_dot(const Rows& dout, const Rows& out, const Rows& delta);
};

struct KernelOptions {
  int threads = 1;
  Device* device = nullptr;  ///< the GPU, for kernels that run on one
  int blocks = 0;            ///< of threads that may stay on the GPU for long; 0: as many as it has multiprocessors
};

/// A line of the table of kernels; the table itself is app/backends.cpp.
struct KernelRow {
  std::string_view name, what;
  /// Empty when the kernel can run this problem here; else the reason why not, as a phrase.
  std::string (*refusal)(const Problem&, Place);
  std::unique_ptr<Kernel> (*make)(const Problem&, const KernelOptions&);
  Place place = Place::cpu;  ///< where it runs
};

}  // namespace annulus

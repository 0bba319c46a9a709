#pragma once
#include <algorithm>
#include <memory>
#include <utility>

#include "kernel/cuda/mma_kernel.hpp"
#include "kernel/cuda/wgmma_backward.cuh"
#include "kernel/cuda/wgmma_forward.cuh"

namespace annulus::cuda {

/// Attention of 16-bit inputs on Hopper's tensor cores, up to 256 channels (backward: 128); accumulation in f32. What is
/// not here, and rows that its copies cannot read (not aligned to 16 bytes), is left to another kernel. A launcher also makes tensor
/// maps. `blocks` of threads stay on the GPU for a whole launch: its multiprocessors, less those that are wanted for
/// communication.
template <class Launcher>
class WgmmaKernel final : public Kernel {
 public:
  WgmmaKernel(const Problem& problem, Launcher launcher, int blocks, std::unique_ptr<Kernel> other)
      : launcher_(std::move(launcher)), problem_(problem), blocks_(blocks), other_(std::move(other)) {
    check_problem(problem);
    const std::string refusal = cuda_wgmma_refusal(problem);
    require(refusal.empty(), "cuda-wgmma: ", refusal);
  }
  std::string_view name() const override { return "cuda-wgmma"; }
  const Problem& problem() const override { return problem_; }
  DType accumulator() const override { return DType::f32; }

  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    if (!copyable({q, kv.k, kv.v})) return other_->forward(tiles, q, kv, into);
    check_forward(problem_, DType::f32, tiles, q, kv, into);
    instance<256>([&](auto type, auto channels) {
      using Shape = WgmmaForwardShape<channels(), channels()>;
      const Tables<Launcher> tables(launcher_, tiles, Side::queries, Shape::rows);
      run(WgmmaForward<type(), Shape>{.q = launcher_.tensor_map(q, rows_per_warpgroup),
                                      .k = launcher_.tensor_map(kv.k, Shape::keys),
                                      .v = launcher_.tensor_map(kv.v, Shape::keys),
                                      .a = {.work = tables.work(),
                                            .q = source_of(q),
                                            .k = source_of(kv.k),
                                            .v = source_of(kv.v),
                                            .out = target_of(into.out),
                                            .top = target_of(into.top),
                                            .sum = target_of(into.sum),
                                            .group = static_cast<int>(problem_.group),
                                            .phase = static_cast<int>(problem_.phase),
                                            .scale = static_cast<float>(problem_.softmax_scale)},
                                      .items = items(tables.jobs(), problem_.query_heads)});
    });
  }

  void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) override {
    if (std::max(problem_.channels, problem_.value_channels) > 128 || !copyable({saved.q, saved.dout, kv.k, kv.v}))
      return other_->backward(tiles, saved, kv, into);
    check_backward(problem_, DType::f32, tiles, saved, kv, into);
    const Measured<Launcher> measured(launcher_, tiles, saved, kv.v);
    gradients<Side::queries>(tiles, saved, kv, into, measured.largest());
    gradients<Side::keys>(tiles, saved, kv, into, measured.largest());
  }
  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    other_->observe(tiles, q, k, lse, into);
  }
  void reset(const Partial& partial) override { other_->reset(partial); }
  void merge(const Partial& from, const Partial& into) override { other_->merge(from, into); }
  void finish(const Partial& partial, const Rows& lse) override { other_->finish(partial, lse); }
  void row_dot(const Rows& dout, const Rows& out, const Rows& delta) override { other_->row_dot(dout, out, delta); }

 private:
  template <int n>
  using Number = std::integral_constant<int, n>;
  template <DType t>
  using Type = std::integral_constant<DType, t>;

  /// use(type, channels) with the smallest instance that holds the problem's, of `most` channels or fewer.
  template <int most, class Use>
  void instance(const Use& use) const {
    const auto typed = [&](auto channels) {
      if (problem_.type == DType::bf16) {
        use(Type<DType::bf16>(), channels);
      } else {
        use(Type<DType::f16>(), channels);
      }
    };
    const Index channels = std::max(problem_.channels, problem_.value_channels);
    if (channels <= 64) return typed(Number<64>());
    if constexpr (most > 128) {
      if (channels > 128) return typed(Number<most>());
    }
    typed(Number<128>());
  }

  template <Side side>
  void gradients(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into,
                 const Largest* largest) {
    constexpr bool of_queries = side == Side::queries;
    const Rows &own1 = of_queries ? saved.q : kv.k, &own2 = of_queries ? saved.dout : kv.v,
               &other1 = of_queries ? kv.k : saved.q, &other2 = of_queries ? kv.v : saved.dout;
    instance<128>([&](auto type, auto channels) {
      using Shape = WgmmaBackwardShape<side, channels(), channels()>;
      const Tables<Launcher> tables(launcher_, tiles, side, Shape::rows);
      run(WgmmaBackward<type(), Shape>{
          .own1 = launcher_.tensor_map(own1, rows_per_warpgroup),
          .own2 = launcher_.tensor_map(own2, rows_per_warpgroup),
          .other1 = launcher_.tensor_map(other1, Shape::columns),
          .other2 = launcher_.tensor_map(other2, Shape::columns),
          .a = {.work = tables.work(),
                .own1 = source_of(own1),
                .own2 = source_of(own2),
                .other1 = source_of(other1),
                .other2 = source_of(other2),
                .lse = source_of(saved.lse),
                .delta = source_of(saved.delta),
                .gradient1 = target_of(of_queries ? into.dq : into.dk),
                .gradient2 = target_of(of_queries ? Rows{} : into.dv),
                .query_heads = static_cast<int>(problem_.query_heads),
                .group = static_cast<int>(problem_.group),
                .phase = static_cast<int>(problem_.phase),
                .scale = static_cast<float>(problem_.softmax_scale),
                .largest = largest},
          .items = items(tables.jobs(), of_queries ? problem_.query_heads : problem_.kv_heads)});
    });
  }

  /// Tensor maps are of something, with addresses and distances in multiples of 16 bytes.
  static bool copyable(std::initializer_list<Rows> all) {
    for (const Rows& rows : all)
      if (!source_of(rows).aligned || rows.tokens == 0 || rows.heads == 0) return false;
    return true;
  }

  Items items(Index jobs, Index heads) const {
    require(jobs * heads <= std::numeric_limits<int>::max() - blocks_, "too many blocks of rows for one call: ", jobs,
            " x ", heads, " heads");
    return {static_cast<int>(jobs), static_cast<int>(heads), static_cast<int>(std::min<Index>(blocks_, jobs * heads))};
  }
  template <class Body>
  void run(const Body& body) {
    if (body.items.blocks > 0) launcher_.run(body, body.items.blocks, 1);
  }

  Launcher launcher_;
  Problem problem_;
  int blocks_;
  std::unique_ptr<Kernel> other_;
};

}  // namespace annulus::cuda

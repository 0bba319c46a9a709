#pragma once
#include <cstdint>
#include <utility>

#include "annulus/kernel/cuda.hpp"
#include "kernel/cuda/mma_backward.cuh"
#include "kernel/cuda/simt_kernel.hpp"

namespace annulus::cuda {

inline Source source_of(const Rows& rows) {
  const Index head_bytes = rows.channels * bytes_of(rows.type);
  const bool aligned =
      reinterpret_cast<std::uintptr_t>(rows.data) % 16 == 0 && rows.pitch % 16 == 0 && head_bytes % 16 == 0;
  return {rows.data, rows.pitch, head_bytes, static_cast<int>(rows.channels), aligned};
}

inline Target target_of(const Rows& rows) {
  return {rows.data, rows.pitch, rows.channels * bytes_of(rows.type), static_cast<int>(rows.channels)};
}

/// What f16 rows of a call are scaled by in backward, in the memory of the device; nothing of other types.
template <class Launcher>
class Measured {
 public:
  Measured(Launcher& launcher, std::span<const Tile> tiles, const Saved& saved, const Rows& v)
      : memory_(launcher.device(), v.type == DType::f16 ? sizeof(Largest) : 0) {
    if (v.type != DType::f16) return;
    launcher.device().zero(memory_.as<std::byte>(), sizeof(Largest));
    auto* const into = memory_.as<Largest>();
    of_side(launcher, tiles, Side::queries, {{}, saved.dout, saved.lse, saved.delta, &into->dout, &into->delta});
    of_side(launcher, tiles, Side::keys, {{}, v, {}, {}, &into->v, nullptr});
  }
  const Largest* largest() const { return memory_.as<Largest>(); }

 private:
  static void of_side(Launcher& launcher, std::span<const Tile> tiles, Side side, MeasureRows<Launcher> body) {
    const Tables<Launcher> tables(launcher, tiles, side, 128);
    body.work = tables.work();
    if (tables.jobs() > 0 && body.rows.heads > 0) launcher.run(body, tables.jobs(), body.rows.heads);
  }
  Piece memory_;
};

/// Attention of 16-bit inputs on tensor cores, up to 256 channels; accumulation in f32. What is not a matrix product is
/// left to the plain kernel. A launcher runs bodies: on a GPU, or in the emulator.
template <class Launcher>
class MmaKernel final : public Kernel {
 public:
  MmaKernel(const Problem& problem, Launcher launcher, std::unique_ptr<Kernel> plain)
      : launcher_(std::move(launcher)), problem_(problem), plain_(std::move(plain)) {
    check_problem(problem);
    const std::string refusal = cuda_mma_refusal(problem);
    require(refusal.empty(), "cuda-mma cannot run this: ", refusal);
  }
  std::string_view name() const override { return "cuda-mma"; }
  const Problem& problem() const override { return problem_; }
  DType accumulator() const override { return DType::f32; }

  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    check_forward(problem_, DType::f32, tiles, q, kv, into);
    with_instance([&](auto type, auto c, auto v) {
      using Shape = ForwardShape<c(), v()>;
      const Tables<Launcher> tables(launcher_, tiles, Side::queries, Shape::rows);
      run(MmaForward<type(), Shape>{{.work = tables.work(),
                                     .q = source_of(q),
                                     .k = source_of(kv.k),
                                     .v = source_of(kv.v),
                                     .out = target_of(into.out),
                                     .top = target_of(into.top),
                                     .sum = target_of(into.sum),
                                     .group = static_cast<int>(problem_.group),
                                     .phase = static_cast<int>(problem_.phase),
                                     .scale = static_cast<float>(problem_.softmax_scale)}},
          tables.jobs(), problem_.query_heads);
    });
  }

  void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) override {
    check_backward(problem_, DType::f32, tiles, saved, kv, into);
    const Measured<Launcher> measured(launcher_, tiles, saved, kv.v);
    BackwardArguments a{.work = {},
                        .own1 = source_of(saved.q),
                        .own2 = source_of(saved.dout),
                        .other1 = source_of(kv.k),
                        .other2 = source_of(kv.v),
                        .lse = source_of(saved.lse),
                        .delta = source_of(saved.delta),
                        .gradient1 = target_of(into.dq),
                        .gradient2 = {},
                        .query_heads = static_cast<int>(problem_.query_heads),
                        .group = static_cast<int>(problem_.group),
                        .phase = static_cast<int>(problem_.phase),
                        .scale = static_cast<float>(problem_.softmax_scale),
                        .largest = measured.largest()};
    backward_by<Side::queries, Gradient::first>(tiles, a);
    std::swap(a.own1, a.other1);
    std::swap(a.own2, a.other2);
    a.gradient1 = target_of(into.dk);
    a.gradient2 = target_of(into.dv);
    if (problem_.channels <= 128 && problem_.value_channels <= 128) {
      backward_by<Side::keys, Gradient::both>(tiles, a);
    } else {
      backward_by<Side::keys, Gradient::first>(tiles, a);
      backward_by<Side::keys, Gradient::second>(tiles, a);
    }
  }

  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    plain_->observe(tiles, q, k, lse, into);
  }
  void reset(const Partial& partial) override { plain_->reset(partial); }
  void merge(const Partial& from, const Partial& into) override { plain_->merge(from, into); }
  void finish(const Partial& partial, const Rows& lse) override { plain_->finish(partial, lse); }
  void row_dot(const Rows& dout, const Rows& out, const Rows& delta) override { plain_->row_dot(dout, out, delta); }

 private:
  template <int n>
  using Number = std::integral_constant<int, n>;
  template <DType t>
  using Type = std::integral_constant<DType, t>;

  /// use(type, channels, value channels) with the smallest instance that holds the problem's.
  template <class Use>
  void with_instance(const Use& use) const {
    const Index c = problem_.channels, v = problem_.value_channels, widest = c > v ? c : v;
    const auto typed = [&](auto channels, auto value_channels) {
      if (problem_.type == DType::bf16) {
        use(Type<DType::bf16>(), channels, value_channels);
      } else {
        use(Type<DType::f16>(), channels, value_channels);
      }
    };
    if (widest <= 64) return typed(Number<64>(), Number<64>());
    if (widest <= 96) return typed(Number<96>(), Number<96>());
    if (widest <= 128) return typed(Number<128>(), Number<128>());
    if (widest <= 192 && v <= 128) return typed(Number<192>(), Number<128>());
    if (widest <= 192) return typed(Number<192>(), Number<192>());
    return typed(Number<256>(), Number<256>());
  }

  template <Side side, Gradient gradient>
  void backward_by(std::span<const Tile> tiles, BackwardArguments a) {
    with_instance([&](auto type, auto c, auto v) {
      // the launches of each gradient alone are for the instances that cannot hold both
      if constexpr (side == Side::queries || (gradient == Gradient::both) == (c() <= 128)) {
        using Shape = BackwardShape<side, gradient, c(), v()>;
        const Tables<Launcher> tables(launcher_, tiles, side, Shape::rows);
        a.work = tables.work();
        run(MmaBackward<type(), Shape>{a}, tables.jobs(),
            side == Side::queries ? problem_.query_heads : problem_.kv_heads);
      }
    });
  }

  template <class Body>
  void run(const Body& body, Index jobs, Index heads) {
    if (jobs > 0 && heads > 0) launcher_.run(body, jobs, heads);
  }

  Launcher launcher_;
  Problem problem_;
  std::unique_ptr<Kernel> plain_;
};

}  // namespace annulus::cuda

#pragma once
#include <memory>
#include <utility>

#include "annulus/kernel/kernel.hpp"

namespace annulus::app {

/// A GPU's kernel that returns when its work is done, so that a timeline tells how long the work took and not how long
/// it took to ask for it. What runs beside it (copies, NCCL) goes on.
class FinishingKernel final : public Kernel {
 public:
  FinishingKernel(std::unique_ptr<Kernel> inner, Device& device) : inner_(std::move(inner)), device_(device) {}
  std::string_view name() const override { return inner_->name(); }
  const Problem& problem() const override { return inner_->problem(); }
  DType accumulator() const override { return inner_->accumulator(); }
  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    inner_->forward(tiles, q, kv, into);
    device_.finish();
  }
  void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) override {
    inner_->backward(tiles, saved, kv, into);
    device_.finish();
  }
  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    inner_->observe(tiles, q, k, lse, into);
    device_.finish();
  }
  void reset(const Partial& partial) override { inner_->reset(partial); }
  void merge(const Partial& from, const Partial& into) override {
    inner_->merge(from, into);
    device_.finish();
  }
  void finish(const Partial& partial, const Rows& lse) override {
    inner_->finish(partial, lse);
    device_.finish();
  }
  void row_dot(const Rows& dout, const Rows& out, const Rows& delta) override { inner_->row_dot(dout, out, delta); }

 private:
  std::unique_ptr<Kernel> inner_;
  Device& device_;
};

}  // namespace annulus::app

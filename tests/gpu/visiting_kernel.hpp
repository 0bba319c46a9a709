#pragma once
#include <functional>
#include <list>
#include <vector>

#include "annulus/kernel/kernel.hpp"
#include "annulus/memory/device.hpp"

namespace annulus::test {

/// The kernel of a device as one of the CPU: rows are copied there and back in every call, poison in their gaps
/// included, so that the tests of CPU kernels are those of GPU kernels.
class VisitingKernel final : public Kernel {
 public:
  VisitingKernel(std::unique_ptr<Kernel> inner, Device& device) : inner_(std::move(inner)), device_(device) {}
  std::string_view name() const override { return inner_->name(); }
  const Problem& problem() const override { return inner_->problem(); }
  DType accumulator() const override { return inner_->accumulator(); }

  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    Visit visit(device_);
    inner_->forward(tiles, visit.in(q), {visit.in(kv.k), visit.in(kv.v)},
                    {visit.out(into.out), visit.out(into.top), visit.out(into.sum)});
  }
  void backward(std::span<const Tile> tiles, const Saved& s, const KeyValue& kv, const Gradients& into) override {
    Visit visit(device_);
    inner_->backward(tiles, {visit.in(s.q), visit.in(s.dout), visit.in(s.lse), visit.in(s.delta)},
                     {visit.in(kv.k), visit.in(kv.v)}, {visit.out(into.dq), visit.out(into.dk), visit.out(into.dv)});
  }
  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    Visit visit(device_);
    Observation there = into;
    for (Rows* rows : {&there.entropy, &there.max_probability, &there.sink_mass, &there.mean_distance, &there.received,
                       &there.top_score})
      if (!rows->absent()) *rows = visit.out(*rows);
    there.top_index = visit.out(into.top_index);
    there.block_mass = visit.out(into.block_mass);
    inner_->observe(tiles, visit.in(q), visit.in(k), visit.in(lse), there);
  }
  void reset(const Partial& p) override {
    Visit visit(device_);
    inner_->reset({visit.out(p.out), visit.out(p.top), visit.out(p.sum)});
  }
  void finish(const Partial& p, const Rows& lse) override {
    Visit visit(device_);
    inner_->finish({visit.out(p.out), visit.out(p.top), visit.out(p.sum)}, visit.out(lse));
  }
  void row_dot(const Rows& dout, const Rows& out, const Rows& delta) override {
    Visit visit(device_);
    inner_->row_dot(visit.in(dout), visit.in(out), visit.out(delta));
  }

 private:
  // Copies, with their pitch, for the time of a call; what was out is copied back at its end.
  class Visit {
   public:
    explicit Visit(Device& device) : device_(device) {}
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    ~Visit() {
      for (const auto& [host, there] : back_) device_.copy_rows(there, host);
    }
    Rows in(Rows host) {
      if (host.absent()) return host;
      const Rows bytes = whole(host);
      copies_.emplace_back(device_, DType::f16, 1, 1, bytes.channels);
      const Rows& there = copies_.back();
      device_.copy_rows(bytes, there);
      host.data = there.data;
      host.place = device_.place();
      return host;
    }
    Rows out(const Rows& host) {
      if (host.absent()) return host;
      const Rows there = in(host);
      Rows seen = whole(host);
      seen.data = there.data;
      seen.place = there.place;
      back_.emplace_back(whole(host), seen);
      return there;
    }
    template <class T>
    std::span<T> out(std::span<T> host) {
      const Rows rows = dense_rows(host.data(), DType::f64, static_cast<Index>(host.size()), 1, 1);
      return {reinterpret_cast<T*>(out(rows).data), host.size()};
    }

   private:
    // All bytes of the rows, gaps included, as 16-bit numbers.
    static Rows whole(const Rows& host) {
      return dense_rows(host.data, DType::f16, 1, 1, host.tokens * host.pitch / 2, host.place);
    }
    Device& device_;
    std::list<Array> copies_;
    std::vector<std::pair<Rows, Rows>> back_;
  };
  std::unique_ptr<Kernel> inner_;
  Device& device_;
};

}  // namespace annulus::test

#pragma once
#include <utility>

#include "annulus/base/error.hpp"
#include "kernel/cuda/checks.hpp"
#include "kernel/cuda/rowwise.hpp"
#include "kernel/cuda/simt_backward.hpp"
#include "kernel/cuda/simt_forward.hpp"

namespace annulus::cuda {

/// Memory of a device for the time of one call.
class Piece {
 public:
  Piece(Device& device, Index bytes) : device_(device), memory_(device.allocate(bytes)), bytes_(bytes) {}
  Piece(Piece&& other) noexcept
      : device_(other.device_), memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}
  Piece& operator=(Piece&&) = delete;
  ~Piece() {
    if (memory_ != nullptr) device_.release(memory_, bytes_);
  }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(memory_);
  }

 private:
  Device& device_;
  std::byte* memory_;
  Index bytes_;
};

/// The tables of one call in the memory of a device.
template <class Launcher>
class Tables {
 public:
  Tables(Launcher& launcher, std::span<const Tile> tiles, Side side, Index rows)
      : table_(make_jobs(tiles, side, rows)),
        jobs_(put(launcher, std::span<const Job>(table_.jobs))),
        tiles_of_(put(launcher, std::span<const int>(table_.tiles_of))),
        tiles_(put(launcher, tiles)) {}
  Index jobs() const { return static_cast<Index>(table_.jobs.size()); }
  Work work() const { return {jobs_.template as<Job>(), tiles_of_.template as<int>(), tiles_.template as<Tile>()}; }

 private:
  template <class T>
  static Piece put(Launcher& launcher, std::span<const T> values) {
    Piece piece(launcher.device(), static_cast<Index>(values.size_bytes()));
    launcher.upload(piece.as<std::byte>(), std::as_bytes(values));
    return piece;
  }
  JobTable table_;
  Piece jobs_, tiles_of_, tiles_;
};

/// Plain arithmetic for every type of input, up to any number of channels: f32 inside, f64 for f64 inputs. A launcher
/// runs bodies over jobs and heads: on a GPU, or one thread after another (tests).
template <class Launcher>
class SimtKernel : public Kernel {
 public:
  SimtKernel(const Problem& problem, Launcher launcher) : launcher_(std::move(launcher)), problem_(problem) {
    check_problem(problem);
  }
  std::string_view name() const override { return "cuda-simt"; }
  const Problem& problem() const override { return problem_; }
  DType accumulator() const override { return problem_.type == DType::f64 ? DType::f64 : DType::f32; }

  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    check_forward(problem_, accumulator(), tiles, q, kv, into);
    const Tables<Launcher> tables(launcher_, tiles, Side::queries, simt::side);
    typed([&](auto in, auto acc) {
      run(simt::Forward<decltype(in), decltype(acc)>{problem_, tables.work(), q, kv.k, kv.v, into}, tables.jobs(),
          problem_.query_heads);
    });
  }

  void backward(std::span<const Tile> tiles, const Saved& s, const KeyValue& kv, const Gradients& into) override {
    check_backward(problem_, accumulator(), tiles, s, kv, into);
    const Tables<Launcher> by_queries(launcher_, tiles, Side::queries, simt::side),
        by_keys(launcher_, tiles, Side::keys, simt::side);
    typed([&](auto in, auto acc) {
      run(simt::BackwardQueries<decltype(in), decltype(acc)>{problem_, by_queries.work(), s.q, s.dout, s.lse, s.delta,
                                                             kv.k, kv.v, into.dq},
          by_queries.jobs(), problem_.query_heads);
      run(simt::BackwardKeys<decltype(in), decltype(acc)>{problem_, by_keys.work(), s.q, s.dout, s.lse, s.delta, kv.k,
                                                          kv.v, into.dk, into.dv},
          by_keys.jobs(), problem_.kv_heads);
    });
  }

  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    check_observe(problem_, accumulator(), tiles, q, k, lse, into);
    const Index cells = into.block_mass.empty() ? 0 : problem_.query_heads * into.query_blocks * into.key_blocks;
    const Index masses = into.received.absent() ? 0 : k.tokens * problem_.query_heads;
    const Tables<Launcher> tables(launcher_, tiles, Side::queries, simt::side);
    const Piece sums(launcher_.device(), (cells + masses) * static_cast<Index>(sizeof(simt::Fixed)));
    auto* const map = cells > 0 ? sums.as<simt::Fixed>() : nullptr;
    auto* const received = masses > 0 ? sums.as<simt::Fixed>() + cells : nullptr;
    launcher_.device().zero(sums.as<std::byte>(), (cells + masses) * static_cast<Index>(sizeof(simt::Fixed)));
    typed([&](auto in, auto acc) {
      run(simt::Observe<decltype(in), decltype(acc)>{problem_, tables.work(), q, k, lse, into, received, map},
          tables.jobs(), problem_.query_heads);
      run_each(Fold<decltype(acc)>{received, into.received, map, into.block_mass.data(), cells},
               std::max(cells, masses));
    });
  }

  void reset(const Partial& partial) override {
    typed([&](auto, auto acc) { run_rowwise(Reset<decltype(acc)>{partial}, partial.out.tokens * partial.out.heads); });
  }
  void merge(const Partial& from, const Partial& into) override {
    require(same_shape(from.out, into.out), "partials must have the same shape to merge");
    typed([&](auto, auto acc) {
      run_each(Merge<decltype(acc)>{from, into}, into.out.tokens * into.out.heads);
    });
  }
  void finish(const Partial& partial, const Rows& lse) override {
    typed([&](auto, auto acc) {
      run_rowwise(Finish<decltype(acc)>{partial, lse}, partial.out.tokens * partial.out.heads);
    });
  }
  void row_dot(const Rows& dout, const Rows& out, const Rows& delta) override {
    typed([&](auto in, auto acc) {
      run_rowwise(RowDot<decltype(in), decltype(acc)>{dout, out, delta}, out.tokens * out.heads);
    });
  }

 protected:
  template <class Body>
  void run(const Body& body, Index jobs, Index heads) {
    if (jobs > 0 && heads > 0) launcher_.run(body, jobs, heads);
  }
  template <class Body>
  void run_rowwise(const Body& body, Index rows) {
    run(body, ceil_div(rows, rows_at_once), 1);
  }
  template <class Body>
  void run_each(const Body& body, Index numbers) {
    run(body, ceil_div(numbers, rowwise_threads), 1);
  }
  /// Calls work(As...{}, accumulator{}) for the type of inputs.
  template <class Work>
  void typed(const Work& work) const {
    for_type(problem_.type, [&](auto in) {
      if constexpr (decltype(in)::type == DType::f64) {
        work(in, double{});
      } else {
        work(in, float{});
      }
    });
  }
  Launcher launcher_;
  Problem problem_;
};

}  // namespace annulus::cuda

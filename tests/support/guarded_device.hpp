#pragma once
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <map>

#include "annulus/kernel/partial.hpp"
#include "annulus/memory/device.hpp"

namespace annulus {

/// A device apart from the CPU, as a GPU is, without a GPU: its memory can be touched only while the device itself, or
/// a kernel made for it, works. Whoever else looks at it dies with a segmentation fault. One rank's.
class GuardedDevice final : public Device {
 public:
  GuardedDevice() = default;
  GuardedDevice(const GuardedDevice&) = delete;
  GuardedDevice& operator=(const GuardedDevice&) = delete;
  ~GuardedDevice() override { EXPECT_TRUE(pieces_.empty()) << pieces_.size() << " pieces were never released"; }

  Place place() const override { return Place::cuda; }
  std::string name() const override { return "guarded"; }
  std::byte* allocate(Index bytes) override {
    const auto length = static_cast<std::size_t>(ceil_div(std::max<Index>(bytes, 1), page) * page);
    void* memory = mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require<Failure::fit>(memory != MAP_FAILED, "there is not enough memory for ", bytes, " bytes");
    auto* bytes_of_it = static_cast<std::byte*>(memory);
    pieces_[bytes_of_it] = length;
    const Open open(*this);
    std::fill(bytes_of_it, bytes_of_it + length, std::byte{0xff});  // NaN in every type
    return bytes_of_it;
  }
  void release(std::byte* memory, Index) noexcept override {
    munmap(memory, pieces_.at(memory));
    pieces_.erase(memory);
  }
  void zero(std::byte* memory, Index bytes) override {
    opened([&] { cpu_.zero(memory, bytes); });
  }
  void copy(std::byte* to, const std::byte* from, Index bytes) override {
    opened([&] { cpu_.copy(to, from, bytes); });
  }
  void convert(const Rows& a, const Rows& b) override {
    opened([&] { annulus::convert(a, b); });
  }
  void copy_rows(const Rows& a, const Rows& b) override {
    opened([&] { annulus::copy_rows(a, b); });
  }
  void clear(const Rows& rows) override {
    opened([&] { annulus::clear(rows); });
  }
  void add(const Rows& a, const Rows& b) override {
    opened([&] { annulus::add(a, b); });
  }

  void pace() override { ++paces; }

  template <class Work>
  void opened(const Work& work) {
    const Open open(*this);
    work();
  }

  Index paces = 0;  ///< how often somebody kept pace

 private:
  static constexpr Index page = 4096;
  struct Open {  // all memory accessible as long as it lives
    explicit Open(GuardedDevice& d) : device(d) { device.protect(PROT_READ | PROT_WRITE); }
    ~Open() { device.protect(PROT_NONE); }
    GuardedDevice& device;
  };
  void protect(int rights) {
    for (const auto& [memory, length] : pieces_) mprotect(memory, length, rights);
  }
  CpuDevice cpu_;
  std::map<std::byte*, std::size_t> pieces_;
};

/// A CPU kernel as the kernel of a guarded device.
class GuardedKernel final : public Kernel {
 public:
  GuardedKernel(std::unique_ptr<Kernel> inner, GuardedDevice& device) : inner_(std::move(inner)), device_(device) {}
  std::string_view name() const override { return "guarded"; }
  const Problem& problem() const override { return inner_->problem(); }
  DType accumulator() const override { return inner_->accumulator(); }
  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    device_.opened([&] { inner_->forward(tiles, q, kv, into); });
  }
  void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) override {
    device_.opened([&] { inner_->backward(tiles, saved, kv, into); });
  }
  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    device_.opened([&] { inner_->observe(tiles, q, k, lse, into); });
  }
  void reset(const Partial& partial) override {
    device_.opened([&] { inner_->reset(partial); });
  }
  void merge(const Partial& from, const Partial& into) override {
    device_.opened([&] { annulus::merge(from, into); });
  }
  void finish(const Partial& partial, const Rows& lse) override {
    device_.opened([&] { inner_->finish(partial, lse); });
  }
  void row_dot(const Rows& dout, const Rows& out, const Rows& delta) override {
    device_.opened([&] { inner_->row_dot(dout, out, delta); });
  }

 private:
  std::unique_ptr<Kernel> inner_;
  GuardedDevice& device_;
};

}  // namespace annulus

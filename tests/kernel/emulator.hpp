#pragma once
#include <ucontext.h>

#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "annulus/memory/device.hpp"

// GPU threads one after another on a CPU: each is a fibre that runs until it must wait for the others of its warp or
// block. So the very source of the GPU kernels is tested without a GPU: indices, masks, states, barriers that are not
// met by all. It is no proof against races: between two barriers threads run in one order only.

namespace annulus::test {

class Emulator {
 public:
  static constexpr int warp = 32;

  Index job = 0, head = 0;
  std::vector<std::byte> shared;

  /// Runs the threads of one block to their end.
  void run_block(int threads, int shared_bytes, const std::function<void(int)>& thread) {
    shared.assign(static_cast<std::size_t>(shared_bytes) + 256, std::byte{0xff});  // NaN until it is written
    body_ = &thread;
    fibres_.resize(static_cast<std::size_t>(threads));
    warps_.assign(static_cast<std::size_t>((threads + warp - 1) / warp), {});
    block_ = {};
    done_ = 0;
    for (int n = 0; n < threads; ++n) begin(n);
    while (done_ < threads) {
      const long before = progress_;
      for (current_ = 0; current_ < threads; ++current_)
        if (!fibre().ended) swapcontext(&scheduler_, &fibre().context);
      if (progress_ == before) throw std::logic_error("threads wait for others that never come");
    }
  }

  /// A barrier of all threads of the block.
  void sync() {
    const long round = block_.round;
    if (++block_.arrived == static_cast<int>(fibres_.size())) {
      block_.arrived = 0;
      ++block_.round;
    }
    ++progress_;
    while (block_.round == round) yield();
  }

  /// All lanes of the warp bring a value of up to 64 bytes and see what the others brought. `kind` must be the same.
  template <class T>
  const T* exchange(int kind, const T& mine) {
    static_assert(sizeof(T) <= 64 && std::is_trivially_copyable_v<T>);
    Warp& w = warps_[static_cast<std::size_t>(current_ / warp)];
    const long round = w.round;
    auto& slots = w.slots[round % 2];
    if (w.arrived > 0 && w.kind != kind) throw std::logic_error("lanes of a warp ask for different things");
    w.kind = kind;
    std::memcpy(slots.data() + current_ % warp * static_cast<int>(sizeof(T)), &mine, sizeof(T));
    if (++w.arrived == warp) {
      w.arrived = 0;
      ++w.round;
    }
    ++progress_;
    while (w.round == round) yield();
    return reinterpret_cast<const T*>(slots.data());
  }

  int current() const { return current_; }

 private:
  struct Fibre {
    ucontext_t context;
    std::vector<std::byte> stack;
    bool ended = false;
  };
  struct Warp {
    int arrived = 0, kind = 0;
    long round = 0;
    alignas(16) std::array<std::byte, 64 * warp> slots[2];
  };
  struct Barrier {
    int arrived = 0;
    long round = 0;
  };

  Fibre& fibre() { return *fibres_[static_cast<std::size_t>(current_)]; }

  void begin(int n) {
    auto& fibre = fibres_[static_cast<std::size_t>(n)];
    if (fibre == nullptr) {
      fibre = std::make_unique<Fibre>();
      fibre->stack.resize(std::size_t{1} << 16);
    }
    fibre->ended = false;
    getcontext(&fibre->context);
    fibre->context.uc_stack.ss_sp = fibre->stack.data();
    fibre->context.uc_stack.ss_size = fibre->stack.size();
    fibre->context.uc_link = &scheduler_;
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&fibre->context, reinterpret_cast<void (*)()>(&Emulator::enter), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self));
  }

  static void enter(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Emulator*>((std::uintptr_t{high} << 32) | low);
    (*self->body_)(self->current_);
    self->fibre().ended = true;
    ++self->done_;
    ++self->progress_;
  }

  void yield() { swapcontext(&fibre().context, &scheduler_); }

  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Warp> warps_;
  Barrier block_;
  ucontext_t scheduler_{};
  const std::function<void(int)>* body_ = nullptr;
  int current_ = 0, done_ = 0;
  long progress_ = 0;
};

/// A thread of a body in the emulator; what cuda::GpuThread is on a GPU.
struct EmulatedThread {
  Emulator& gpu;
  int number;
  int index() const { return number; }
  Index job() const { return gpu.job; }
  Index head() const { return gpu.head; }
  std::byte* shared() const {
    const auto address = reinterpret_cast<std::uintptr_t>(gpu.shared.data());
    return gpu.shared.data() + (128 - address % 128) % 128;
  }
  void sync() const { gpu.sync(); }
  template <class T>
  T shuffle_xor(T x, int mask) const {
    return gpu.exchange(1, x)[(number % Emulator::warp) ^ mask];
  }
  void add(unsigned long long* sum, unsigned long long x) const { *sum += x; }
};

/// Runs bodies in the emulator, on host memory.
class EmulatedLauncher {
 public:
  Device& device() const { return *device_; }
  void upload(std::byte* to, std::span<const std::byte> values) const {
    if (!values.empty()) std::memcpy(to, values.data(), values.size());
  }
  template <class Body>
  void run(const Body& body, Index jobs, Index heads) const {
    for (gpu_->job = 0; gpu_->job < jobs; ++gpu_->job)
      for (gpu_->head = 0; gpu_->head < heads; ++gpu_->head)
        gpu_->run_block(Body::threads, Body::shared_bytes, [&](int n) {
          EmulatedThread thread{*gpu_, n};
          body(thread);
        });
  }

 private:
  std::shared_ptr<CpuDevice> device_ = std::make_shared<CpuDevice>();
  std::shared_ptr<Emulator> gpu_ = std::make_shared<Emulator>();
};

}  // namespace annulus::test

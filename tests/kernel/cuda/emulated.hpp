#pragma once
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "annulus/memory/device.hpp"
#include "kernel/cuda_emulator/emulator.hpp"

// Bodies (kernel/cuda/body.hpp) run by the emulator on host memory.

namespace annulus::test {

/// A thread of a body in the emulator; what cuda::GpuThread is on a GPU.
template <int shared_bytes>
struct EmulatedThread {
  int index() const { return emulator::thread(); }
  Index job() const { return emulator::block_index.x; }
  Index head() const { return emulator::block_index.y; }
  std::byte* shared() const {
    auto& memory = emulator::block_state<std::vector<std::byte>>();
    if (memory.empty()) memory.assign(shared_bytes + alignment, std::byte{0xff});  // NaN until it is written
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return memory.data() + (alignment - address % alignment) % alignment;
  }
  void sync() const { emulator::synchronise(0, emulator::threads(), "sync"); }
  template <class T>
  T shuffle_xor(T x, int mask) const {
    struct Lane {
      T value, got;
    } lane{x, x};
    emulator::collective(index() / 32 * 32, 32, "shuffle_xor", &lane, [&](std::span<void* const> lanes) {
      for (std::size_t l = 0; l < lanes.size(); ++l)
        static_cast<Lane*>(lanes[l])->got = static_cast<const Lane*>(lanes[l ^ static_cast<std::size_t>(mask)])->value;
    });
    return lane.got;
  }
  void add(unsigned long long* sum, unsigned long long x) const { *sum += x; }
  void raise(unsigned* most, unsigned x) const { *most = std::max(*most, x); }

 private:
  static constexpr std::size_t alignment = 128;
};

class EmulatedLauncher {
 public:
  /// seed: of the random order in which threads run.
  explicit EmulatedLauncher(unsigned seed = 1) : seed_(seed) {}
  Device& device() const { return *device_; }
  void upload(std::byte* to, std::span<const std::byte> values) const {
    if (!values.empty()) std::memcpy(to, values.data(), values.size());
  }
  template <class Body>
  void run(const Body& body, Index jobs, Index heads) const {
    const std::lock_guard alone(one_at_a_time);
    const emulator::Launch launch{
        {static_cast<unsigned>(jobs), static_cast<unsigned>(heads)}, {Body::threads}, Body::shared_bytes, seed_};
    emulator::launch(launch, [&] {
      EmulatedThread<Body::shared_bytes> thread;
      body(thread);
    });
  }

 private:
  static inline std::mutex one_at_a_time;  // ranks may be threads
  unsigned seed_;
  std::shared_ptr<CpuDevice> device_ = std::make_shared<CpuDevice>();
};

}  // namespace annulus::test

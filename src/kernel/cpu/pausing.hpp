#pragma once
#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "annulus/kernel/kernel.hpp"

namespace annulus::cpu {

/// The caller's pauses, between the items of a call that has `pairs` to compute: what they throw waits until no thread is at
/// work.
struct Pausing {
  const Kernel::Pause& pause;
  Index pairs;
  std::thread::id caller = std::this_thread::get_id();
  std::atomic<Index> done = 0;
  std::atomic<bool> thrown = false;
  std::exception_ptr failure = nullptr;

  bool failed() const { return thrown.load(std::memory_order_relaxed); }
  void after(Index more) {
    const Index now = done.fetch_add(more, std::memory_order_relaxed) + more;
    if (!pause || failed() || std::this_thread::get_id() != caller) return;
    try {
      pause(std::min(1.0, static_cast<double>(now) / static_cast<double>(std::max<Index>(1, pairs))));
    } catch (...) {
      failure = std::current_exception();
      thrown = true;
    }
  }
  void rethrow() const {
    if (failure) std::rethrow_exception(failure);
  }
};

}  // namespace annulus::cpu

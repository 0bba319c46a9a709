#pragma once
#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <new>

#include "annulus/base/types.hpp"

namespace annulus::cpu {

/// Floats aligned to a cache line, zeroed, kept for the life of the kernel and grown when a pass needs more. Whole huge
/// pages where the system has them: small ones, wherever they lie in memory, may crowd into few sets of the cache.
class Scratch {
 public:
  void grow(Index floats) {
    if (floats <= floats_) return;
    memory_.reset();
    const auto bytes = static_cast<std::size_t>(ceil_div(floats * Index{sizeof(float)}, huge_page) * huge_page);
    memory_.reset(static_cast<float*>(::operator new(bytes, alignment)));
#if defined(MADV_HUGEPAGE)
    madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a wish: nothing is lost when it is not granted
#endif
    std::memset(memory_.get(), 0, static_cast<std::size_t>(floats) * sizeof(float));
    floats_ = floats;
  }
  float* data() const { return memory_.get(); }

 private:
  static constexpr Index huge_page = 2 * 1024 * 1024;
  static constexpr std::align_val_t alignment{huge_page};
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, alignment); }
  };
  std::unique_ptr<float, Free> memory_;
  Index floats_ = 0;
};

}  // namespace annulus::cpu

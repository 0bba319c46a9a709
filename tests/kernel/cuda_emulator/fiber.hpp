#pragma once
#include <ucontext.h>

#include <cstddef>
#include <memory>

namespace annulus::emulator {

/// A place to run: the stack of the caller of launch(), or one of an emulated thread. Not movable: contexts point into
/// themselves.
class Fiber {
 public:
  /// The caller's own stack.
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Prepares to run entry() on a stack of its own; entry must end with a switch elsewhere that never comes back.
  void prepare(void (*entry)(), std::size_t stack_bytes);
  /// Leaves this fiber, which must be the running one, and goes on in the other. `last`: never to come back.
  void switch_to(Fiber& other, bool last = false);
  /// The first thing entry() must call.
  static void entered();

 private:
  ucontext_t context_{};
  std::unique_ptr<std::byte[]> stack_;
  std::size_t stack_bytes_ = 0;
  const void* bottom_ = nullptr;  // of the stack, as the address sanitizer sees it
  void* fake_ = nullptr;          // its stack of variables that outlive their scope
};

}  // namespace annulus::emulator

#include "kernel/cuda_emulator/fiber.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace annulus::emulator {
namespace {

Fiber* left = nullptr;     // who switched last
Fiber* present = nullptr;  // and where to

}  // namespace

void Fiber::prepare(void (*entry)(), std::size_t stack_bytes) {
  stack_ = std::make_unique_for_overwrite<std::byte[]>(stack_bytes);
  stack_bytes_ = stack_bytes;
  bottom_ = stack_.get();
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_.get();
  context_.uc_stack.ss_size = stack_bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
}

#if defined(__SANITIZE_ADDRESS__)

void Fiber::entered() {
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(present->fake_, &bottom, &bytes);
  left->bottom_ = bottom;  // what the first switch learns about the caller's own stack
  left->stack_bytes_ = bytes;
}

void Fiber::switch_to(Fiber& other, bool last) {
  left = this;
  present = &other;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_, other.bottom_, other.stack_bytes_);
  swapcontext(&context_, &other.context_);
  entered();
}

#else

void Fiber::entered() {}

void Fiber::switch_to(Fiber& other, bool) {
  left = this;
  present = &other;
  swapcontext(&context_, &other.context_);
}

#endif

}  // namespace annulus::emulator

#pragma once
#include <any>
#include <cstddef>
#include <functional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <typeindex>

#include "kernel/cuda_emulator/shared_memory.hpp"

// Runs the body of a CUDA kernel on the CPU, to find what a compiler cannot: one fiber per thread, blocks one after
// another in random order, threads in random order between the points where they must meet. What is wrong (a race, a
// missing wait, lanes that part ways, a deadlock, an address out of bounds) ends the launch with a Failure that says so.
// Not for speed. One launch at a time in a process.

namespace annulus::emulator {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Part>
[[noreturn]] void fail(const Part&... part) {
  std::ostringstream text;
  (text << ... << part);
  throw Failure(text.str());
}

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline Dim3 grid_dim, block_dim, block_index, thread_index;  ///< of the running thread

struct Launch {
  Dim3 grid, block;
  std::size_t shared_bytes = 0;  ///< dynamic shared memory
  unsigned seed = 1;             ///< of every random order
};

/// Runs body() once per thread of every block. Throws Failure, or what body() throws, with the block and thread named.
void launch(const Launch& launch, const std::function<void()>& body);

// --- what primitives are made of; all but the first to be called from a running thread ----------------------------

/// The running thread, counted inside its block, x fastest; and the number of threads.
int thread();
int threads();

SharedMemory& shared_memory();
/// What the running thread has seen, or another.
const Clock& clock();
const Clock& clock_of(int thread);
/// A clock at its start. Number threads() in it is whatever copies on its own.
Clock nothing_seen();
/// Everything this thread has done so far is now in the clock ...
void release(Clock& into);
/// ... and everything in a clock has been seen by this thread.
void acquire(const Clock& from);

/// Waits until threads [first, first + count) have all come here with the same `what`; the last to come calls
/// action(arguments of all). Orders no memory.
void collective(int first, int count, std::string_view what, void* argument,
                const std::function<void(std::span<void* const>)>& action);
/// Barrier of the block or of a warp: as collective, and orders memory among its threads.
void synchronise(int first, int count, std::string_view what);
/// Named barrier 0 to 15: `count` threads arrive, those that wait go on when all have. Orders memory.
void named_barrier(int id, int count, bool wait);
/// Lets others run until ready() holds. For whatever lands by itself, such as memory barriers.
void wait_until(std::string_view what, const std::function<bool()>& ready);

/// Random number in [0, n).
unsigned random_below(unsigned n);

std::any& block_state(std::type_index type);
/// State of one kind that lives as long as the running block.
template <class State>
State& block_state() {
  std::any& any = block_state(typeid(State));
  if (!any.has_value()) any.emplace<State>();
  return *std::any_cast<State>(&any);
}

}  // namespace annulus::emulator

#pragma once
#include <atomic>
#include <exception>
#include <mutex>

#include "annulus/base/types.hpp"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace annulus {

/// Calls work(item, thread) for items 0, ..., count - 1, each once, on up to `threads` threads; an idle thread takes
/// the next item, so that an item may wait for those before it. work must not throw. Without OpenMP: in order, on the caller's thread.
template <class Work>
void for_each_item(int threads, Index count, const Work& work) {
#if defined(_OPENMP)
  if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (Index item = 0; item < count; ++item) work(item, omp_get_thread_num());
    return;
  }
#endif
  static_cast<void>(threads);
  for (Index item = 0; item < count; ++item) work(item, 0);
}

/// The same for work that may throw. Throws what the first item in order has thrown of all that would: those behind it may
/// be left out, those before it are done.
template <class Work>
void try_each_item(int threads, Index count, const Work& work) {
  std::atomic<Index> failed = count;
  std::exception_ptr failure;
  std::mutex mutex;
  for_each_item(threads, count, [&](Index item, int thread) {
    if (item > failed) return;
    try {
      work(item, thread);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (item > failed) return;
      failed = item;
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace annulus

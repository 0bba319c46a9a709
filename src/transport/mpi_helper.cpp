#include "transport/mpi_helper.hpp"

#include <algorithm>
#include <chrono>

#include "transport/mpi_batch.hpp"

namespace annulus::mpi {

std::mutex& calls() {
  static std::mutex mutex;
  return mutex;
}

Helper::Helper(Link& link) : link_(link), thread_([this](const std::stop_token& stop) { run(stop); }) {}

void Helper::run(const std::stop_token& stop) {
  constexpr std::chrono::milliseconds pause(1);
  const auto needed = [this] {
    return link_.waiting == 0 && link_.trouble == nullptr && std::ranges::any_of(link_.open, &Batch::under_way);
  };
  std::unique_lock lock(calls());
  while (changed_.wait(lock, stop, needed)) {
    try {
      link_.advance();
    } catch (...) {
      link_.trouble = std::current_exception();  // for whoever asks next
    }
    changed_.wait_for(lock, stop, pause, [] { return false; });
    if (stop.stop_requested()) return;
  }
}

}  // namespace annulus::mpi

#pragma once
#include <chrono>
#include <string_view>
#include <vector>

#include "annulus/base/types.hpp"

namespace annulus {

/// What one rank did, when. `what` must outlive the timeline (a literal).
struct Event {
  std::string_view what;
  Index step = 0;
  double begin_seconds = 0, end_seconds = 0;  ///< since the timeline was made
};

/// Plain events of one rank, in order of their ends. Not thread-safe: one timeline per rank.
class Timeline {
 public:
  using Clock = std::chrono::steady_clock;
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void record(std::string_view what, Index step, double begin_seconds) {
    events_.push_back({what, step, begin_seconds, now()});
  }
  const std::vector<Event>& events() const { return events_; }
  /// Seconds spent in events of this name.
  double total(std::string_view what) const;

 private:
  Clock::time_point start_ = Clock::now();
  std::vector<Event> events_;
};

}  // namespace annulus

#include "annulus/timeline/timeline.hpp"

namespace annulus {

void Timeline::record(std::string_view what, Index step, double begin_seconds) {
  while (!events_.empty() && events_.back().what == what && events_.back().begin_seconds >= begin_seconds)
    events_.pop_back();
  events_.push_back({what, step, begin_seconds, now()});
}

double Timeline::total(std::string_view what, double since) const {
  double seconds = 0;
  for (const Event& event : events_)
    if (event.what == what && event.begin_seconds >= since) seconds += event.end_seconds - event.begin_seconds;
  return seconds;
}

}  // namespace annulus

#include "annulus/timeline/timeline.hpp"

namespace annulus {

double Timeline::total(std::string_view what) const {
  double seconds = 0;
  for (const Event& event : events_)
    if (event.what == what) seconds += event.end_seconds - event.begin_seconds;
  return seconds;
}

}  // namespace annulus

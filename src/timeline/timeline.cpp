#include "annulus/timeline/timeline.hpp"

#include <new>

namespace annulus {

void Timeline::clear() {
  events_.clear();
  messages_.clear();
}

void Timeline::record(std::string_view what, Index step, double begin_seconds) {
  if (!keeps_) return;
  const auto part = [&](const Event& event) {
    return (event.what == what || event.what == "control") && event.begin_seconds >= begin_seconds;
  };
  while (!events_.empty() && part(events_.back())) events_.pop_back();
  events_.push_back({what, step, begin_seconds, now()});
}

Timeline::Span::Span(Timeline& timeline, std::string_view what, Index step)
    : timeline_(timeline), what_(what), step_(step), begins_(timeline.now()) {
  if (timeline_.watcher_ != nullptr) timeline_.watcher_->begin(what, step);
}

Timeline::Span::~Span() {
  if (timeline_.watcher_ != nullptr) timeline_.watcher_->end();
  try {
    timeline_.record(what_, step_, begins_);
  } catch (const std::bad_alloc&) {  // the loss of an event is nothing beside what follows
  }
}

double Timeline::total(std::string_view what, double since) const {
  double seconds = 0;
  for (const Event& event : events_)
    if (event.what == what && event.begin_seconds >= since) seconds += event.end_seconds - event.begin_seconds;
  return seconds;
}

}  // namespace annulus

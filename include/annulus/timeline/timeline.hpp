#pragma once
#include <chrono>
#include <string_view>
#include <vector>

#include "annulus/timeline/event.hpp"

namespace annulus {

/// Plain events of one rank, in order of their ends, and its messages. Not thread-safe: one timeline per rank.
class Timeline {
 public:
  /// From now on events and messages are kept, or no longer. At first they are not: they are some 50 bytes each, several for
  /// every step of every pass, and stay until clear().
  void keep(bool wanted) { keeps_ = wanted; }
  /// Forgets events and messages. Its clock goes on.
  void clear();
  using Clock = std::chrono::steady_clock;
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  /// Records what ends now. It swallows events of the same name, and of the name "control", that lie inside it.
  void record(std::string_view what, Index step, double begin_seconds);
  void record(const Message& message) {
    if (keeps_) messages_.push_back(message);
  }
  const std::vector<Event>& events() const { return events_; }
  const std::vector<Message>& messages() const { return messages_; }
  /// Hears of every Span when it begins and ends, as profilers want to; nullptr: nobody does. It must outlive the spans.
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void begin(std::string_view what, Index step) = 0;
    virtual void end() = 0;
  };
  void watch(Watcher* watcher) { watcher_ = watcher; }
  /// An event from here to the end of the scope.
  class [[nodiscard]] Span {
   public:
    Span(Timeline& timeline, std::string_view what, Index step);
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;
    ~Span();

   private:
    Timeline& timeline_;
    std::string_view what_;
    Index step_;
    double begins_;
  };
  /// Seconds spent in the kept events of this name that began at `since` or later.
  double total(std::string_view what, double since = 0) const;

 private:
  Clock::time_point start_ = Clock::now();
  Watcher* watcher_ = nullptr;
  bool keeps_ = false;
  std::vector<Event> events_;
  std::vector<Message> messages_;
};

}  // namespace annulus

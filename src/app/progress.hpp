#pragma once
#include <chrono>
#include <string>

#include "annulus/base/types.hpp"

namespace annulus::app {

/// Tells how far a long job is: a bar with ETA on a terminal, a line now and then elsewhere, JSON lines on request.
/// Only the lead's object speaks; it counts its own share and speaks for all. Writes to standard error.
class Progress {
 public:
  /// mode: auto, none or json. total: units of this rank's work.
  Progress(const std::string& mode, bool lead, std::string what, Index total);
  ~Progress() { finish(); }
  /// Work begins now: the clock starts.
  void begin();
  void add(Index units);
  /// Before something else is printed: takes a bar off the line.
  void hide() const;
  /// The last word, if any was spoken.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  enum class Style { silent, bar, lines, json };
  void show(bool last);
  Style style_ = Style::silent;
  std::string what_;
  Index total_, done_ = 0;
  Clock::time_point start_ = Clock::now(), shown_ = start_;
  bool begun_ = false, spoke_ = false;
};

/// 75.2 -> "1 min 15 s"; 0.5 -> "0.5 s".
std::string seconds_text(double seconds);

}  // namespace annulus::app

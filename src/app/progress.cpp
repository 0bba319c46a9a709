#include "app/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

namespace annulus::app {

std::string seconds_text(double seconds) {
  std::array<char, 64> text{};
  if (seconds < 10) {
    std::snprintf(text.data(), text.size(), seconds < 0.1 ? "%.3f s" : "%.1f s", seconds);
  } else if (seconds < 60) {
    std::snprintf(text.data(), text.size(), "%.0f s", seconds);
  } else if (seconds < 48 * 3600) {
    const int minutes = static_cast<int>(seconds) / 60;
    if (minutes < 60) {
      std::snprintf(text.data(), text.size(), "%d min %02d s", minutes, static_cast<int>(seconds) % 60);
    } else {
      std::snprintf(text.data(), text.size(), "%d h %02d min", minutes / 60, minutes % 60);
    }
  } else {
    std::snprintf(text.data(), text.size(), "%.3g days", seconds / (24 * 3600));
  }
  return text.data();
}

Progress::Progress(const std::string& mode, bool lead, std::string what, Index total)
    : what_(std::move(what)), total_(std::max<Index>(1, total)) {
  if (!lead || mode == "none") return;
  style_ = mode == "json" ? Style::json : isatty(STDERR_FILENO) != 0 ? Style::bar : Style::lines;
}

void Progress::begin() {
  if (!begun_) start_ = shown_ = Clock::now();
  begun_ = true;
}

void Progress::finish() {
  if (spoke_) show(true);
  spoke_ = false;
}

void Progress::add(Index units) {
  done_ += units;
  if (style_ == Style::silent) return;
  const double pause = style_ == Style::bar ? 0.2 : 5.0;  // a short job says nothing
  const auto now = Clock::now();
  if (std::chrono::duration<double>(now - shown_).count() < pause) return;
  shown_ = now;
  show(false);
}

void Progress::hide() const {
  if (style_ == Style::bar && spoke_) std::fputs("\r\033[K", stderr);
}

void Progress::show(bool last) {
  const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const double left = share > 0 ? elapsed / share - elapsed : 0;
  spoke_ = true;
  const std::string eta = last ? "done in " + seconds_text(elapsed) : seconds_text(left) + " left";
  if (style_ == Style::json) {
    std::fprintf(stderr, "{\"progress\": \"%s\", \"share\": %.4f, \"elapsed_s\": %.2f, \"left_s\": %.2f}\n",
                 what_.c_str(), share, elapsed, last ? 0.0 : left);
  } else if (style_ == Style::lines) {
    std::fprintf(stderr, "%s: %3.0f %%, %s\n", what_.c_str(), share * 100, eta.c_str());
  } else {
    constexpr int width = 30;
    std::string bar;
    for (int i = 0; i < width; ++i) bar += i < static_cast<int>(share * width) ? "█" : "░";
    std::fprintf(stderr, "\r%-12s %s %3.0f %%  %s      %s", what_.c_str(), bar.c_str(), share * 100, eta.c_str(),
                 last ? "\n" : "");
  }
  std::fflush(stderr);
}

}  // namespace annulus::app

#include "annulus/plan/draw.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"
#include "annulus/geometry/numbers.hpp"

namespace annulus {
namespace {

constexpr int bar_width = 4, cell_width = 10;

// value / most as a bar of eighths, padded with blanks.
std::string bar(Index value, Index most) {
  static constexpr std::array eighths{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (value <= 0 || most <= 0) return std::string(bar_width, ' ');
  const double eighths_filled = static_cast<double>(value) / static_cast<double>(most) * bar_width * 8;
  const auto filled = std::max<Index>(1, std::lround(eighths_filled));
  std::string text;
  for (Index i = 0; i < filled / 8; ++i) text += "█";
  text += eighths[static_cast<std::size_t>(filled % 8)];
  const Index used = filled / 8 + (filled % 8 != 0 ? 1 : 0);
  return text + std::string(static_cast<std::size_t>(bar_width - std::min<Index>(bar_width, used)), ' ');
}

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.insert(0, width - text.size(), ' ');
  return text;
}

std::string cell(const Step& step, Index most) {
  if (step.tiles.empty()) return padded("·", 4) + std::string(cell_width - 3, ' ');
  return padded(std::to_string(step.origin()), 3) + ' ' + bar(pairs(step.tiles), most) + "  ";
}

std::string caption(const Schedule& job) {
  switch (job.grid.travel) {
    case Travel::keys:
      return "each cell: whose keys and values are worked on, and how much work that is";
    case Travel::gather:
      return "each cell: the first of those whose keys and values are worked on, and how much work all of it is";
    case Travel::queries:
      return "each cell: whose queries are worked on, and how much work that is";
    case Travel::tree:
      break;
  }
  const std::size_t rounds = job.planner.merges(0).size();
  return sentence("all queries come to everybody; each bar: their work with its keys and values; then ", rounds,
                  rounds == 1 ? " round" : " rounds", " of pairwise merges");
}

std::string column(std::string text) {
  text.insert(0, 1, ' ');
  text.resize(std::max<std::size_t>(text.size(), cell_width), ' ');
  return text;
}

}  // namespace

std::string draw(const Schedule& job, int most_seats, int most_steps) {
  const int seats = job.planner.seats(), steps = job.planner.steps();
  const int shown_seats = std::min(seats, most_seats), shown_steps = std::min(steps, most_steps);
  std::vector<Plan> plans;
  Index most = 0;
  for (Rank seat = 0; seat < shown_seats; ++seat) {
    plans.push_back(job.plan_of(seat));
    for (const Step& step : plans.back().steps) most = std::max(most, pairs(step.tiles));
  }
  std::string text = job.grid.heads > 1 ? " seat  " : " rank  ";
  for (int s = 0; s < shown_steps; ++s) text += column("step " + std::to_string(s));
  text += steps > shown_steps ? "...\n" : "\n";
  for (const Plan& plan : plans) {
    text += padded(std::to_string(plan.seat), 5) + "  ";
    for (int s = 0; s < shown_steps; ++s) text += cell(plan.steps[static_cast<std::size_t>(s)], most);
    text += "\n";
  }
  if (seats > shown_seats) text += sentence("  ... ", seats - shown_seats, " more\n");
  if (steps > shown_steps) text += sentence("  ... ", steps - shown_steps, " more steps\n");
  return text + "       (" + caption(job) + ")\n";
}

}  // namespace annulus

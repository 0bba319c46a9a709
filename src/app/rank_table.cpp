#include "app/rank_table.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/help.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

constexpr int most_ranks = 65536;  // pricing looks at ranks^2 pairs of shards
constexpr Index most_rows = 64;
constexpr double enough = 0.5;  // of the efficiency

std::string text(Index bytes) { return bytes_text(static_cast<double>(bytes)); }

// Three digits: 1.23M.
std::string rate_text(double per_second) {
  constexpr std::array units{"", "k", "M", "G", "T", "P"};
  std::size_t unit = 0;
  while (per_second >= 999.5 && unit + 1 < units.size()) per_second /= 1000, ++unit;
  std::array<char, 32> digits{};
  std::snprintf(digits.data(), digits.size(), "%.*f%s",
                per_second >= 99.95   ? 0
                : per_second >= 9.995 ? 1
                                      : 2,
                per_second, units.at(unit));
  return digits.data();
}

// A row beside the first that there is.
struct Line {
  const RankRow& row;
  double speedup = 0, efficiency = 0, tokens_per_second = 0;
  bool fits = true;
};

std::vector<Line> lines_of(const std::vector<RankRow>& rows, const std::optional<MemoryLimit>& limit, Index tokens) {
  const auto first = std::ranges::find_if(rows, &RankRow::legal);
  std::vector<Line> lines;
  for (const RankRow& row : rows) {
    Line line{row};
    if (const double seconds = row.estimate.seconds(); row.legal() && seconds > 0) {
      line.speedup = first->estimate.seconds() / seconds;
      line.efficiency = line.speedup * first->ranks / row.ranks;
      line.tokens_per_second = static_cast<double>(tokens) / seconds;
    }
    line.fits = row.legal() && (!limit || row.memory <= limit->bytes);
    lines.push_back(line);
  }
  return lines;
}

json twin_of(const Line& line, bool limited) {
  const RankRow& row = line.row;
  json twin{{"ranks", row.ranks},
            {"node_count", row.nodes()},
            {"ranks_per_node", std::min(row.ranks, row.ranks_per_node)},
            {"legal", row.legal()}};
  if (!row.legal()) {
    twin["verdict"] = row.refusal;
    return twin;
  }
  const Estimate& e = row.estimate;
  twin.update({{"strategy", row.strategy},
               {"grid", row.grid},
               {"partition", row.partition},
               {"reason", row.reason},
               {"seconds", e.seconds()},
               {"forward_seconds", e.forward.seconds},
               {"backward_seconds", e.backward.seconds},
               {"compute_seconds", e.compute_seconds()},
               {"exposed_percent", 100 * e.exposed()},
               {"bytes_inside_nodes", e.inside_bytes()},
               {"bytes_between_nodes", e.network_bytes()},
               {"memory_bytes_per_rank", row.memory},
               {"speedup", line.speedup},
               {"efficiency", line.efficiency},
               {"tokens_per_second", line.tokens_per_second},
               {"sampled_every", e.sampled_every}});
  if (limited) twin["fits"] = line.fits;
  return twin;
}

void print(const Line& line) {
  const RankRow& row = line.row;
  const Estimate& e = row.estimate;
  if (!row.legal()) {
    std::printf("  %6d %5d  - %s", row.ranks, row.nodes(), wrapped_line(row.refusal, 17).c_str());
    return;
  }
  std::printf("  %6d %5d  %-11s %-11s %-10s %8s %7.2f %5.0f %% %5.0f %% %9s %9s %8s%s\n", row.ranks, row.nodes(),
              row.strategy.c_str(), row.grid.c_str(), row.partition.c_str(), duration_text(e.seconds()).c_str(),
              line.speedup, 100 * line.efficiency, 100 * e.exposed(), text(e.network_bytes()).c_str(),
              text(row.memory).c_str(), rate_text(line.tokens_per_second).c_str(), line.fits ? "" : "  no fit");
}

std::string ranks_text(int ranks) { return sentence(ranks, ranks == 1 ? " rank" : " ranks"); }

std::string time_of(const Line& line) { return duration_text(line.row.estimate.seconds()); }

// Who would take how many ranks. Of those that fit the fewest, the most that pay, and the quickest.
std::string answer_of(const std::vector<Line>& lines, const std::optional<MemoryLimit>& limit, json& twin) {
  const Line *fewest = nullptr, *most = nullptr, *quickest = nullptr, *smallest = nullptr, *first = nullptr;
  for (const Line& line : lines) {
    if (!line.row.legal()) continue;
    if (first == nullptr) first = &line;
    if (smallest == nullptr || line.row.memory < smallest->row.memory) smallest = &line;
    if (!line.fits) continue;
    if (fewest == nullptr) fewest = &line;
    if (line.efficiency >= enough) most = &line;
    if (quickest == nullptr || line.row.estimate.seconds() < quickest->row.estimate.seconds()) quickest = &line;
  }
  if (fewest == nullptr) {
    twin = {{"fewest_that_fit", nullptr}, {"most_at_half_efficiency", nullptr}, {"fastest", nullptr}};
    return sentence("none of these numbers of ranks fits in ", text(limit->bytes), " per rank: the least is ",
                    text(smallest->row.memory), ", with ", ranks_text(smallest->row.ranks));
  }
  std::string answer;
  if (limit) {
    twin["fewest_that_fit"] = fewest->row.ranks;
    answer = sentence(fewest->row.ranks, " to fit in ", text(limit->bytes), " per rank (", time_of(*fewest), "), ");
  }
  const std::string half = sentence("half as efficient as ", ranks_text(first->row.ranks));
  if (most != nullptr) {
    twin["most_at_half_efficiency"] = most->row.ranks;
    answer += sentence(limit ? "" : "up to ", most->row.ranks, limit ? " at most to be still " : " are at least ", half,
                       " (", time_of(*most), ")");
  } else {
    twin["most_at_half_efficiency"] = nullptr;
    answer += sentence(limit ? "none of those that fit is " : "none is ", half);
  }
  twin["fastest"] = quickest->row.ranks;
  return answer + sentence(", ", quickest->row.ranks, " for the least time (", time_of(*quickest), ")");
}

}  // namespace

std::vector<int> ranks_listed(const std::string& name, std::span<const Range> list) {
  require(!list.empty() && list.front().begin >= 1, name, " must be 1 or more ranks");
  require(list.back().end - 1 <= most_ranks, name, " must be at most ", most_ranks, " in this version: it is ",
          list.back().end - 1);
  require(count(list) <= most_rows, name, " must not list more than ", most_rows, " numbers: it lists ", count(list));
  std::vector<int> numbers;
  for (const Range& range : list)
    for (Index ranks = range.begin; ranks < range.end; ++ranks) numbers.push_back(narrow(ranks));
  return numbers;
}

void print_rank_table(const std::vector<RankRow>& rows, const std::optional<MemoryLimit>& limit, Index tokens,
                      json& out) {
  const std::vector<Line> lines = lines_of(rows, limit, tokens);
  std::printf("  %6s %5s  %-11s %-11s %-10s %8s %7s %7s %7s %9s %9s %8s\n", "ranks", "nodes", "strategy", "grid",
              "partition", "time", "speedup", "effic.", "exposed", "between", "memory", "tokens/s");
  std::printf("  %90s %9s\n", "nodes", "per rank");
  bool sampled = false;
  for (const Line& line : lines) {
    print(line);
    out["by_ranks"].push_back(twin_of(line, limit.has_value()));
    sampled = sampled || line.row.estimate.sampled_every > 1;
  }
  const RankRow& first = *std::ranges::find_if(rows, &RankRow::legal);
  std::string notes =
      sentence("Speed-up over ", ranks_text(first.ranks), "; efficiency: the speed-up over so many times the ranks. ");
  if (sampled) notes += "Of the largest plans some of the steps are simulated and stand for all. ";
  notes +=
      "Memory is that of the attention at its peak: inputs, results, visiting blocks, head exchange, traces; "
      "not a model's weights and activations, nor what kernels and libraries keep for themselves.";
  if (limit) notes += sentence(" A rank has ", text(limit->bytes), " (", limit->by, ").");
  std::printf("\n  %s", wrapped_line(notes, 2).c_str());
  if (limit) out["memory_limit_bytes"] = limit->bytes;
  out["answer"] = json::object();
  const std::string answer = answer_of(lines, limit, out["answer"]);
  out["answer"]["sentence"] = answer;
  std::printf("\n  %s", wrapped_line("How many ranks: " + answer + ".", 2).c_str());
}

}  // namespace annulus::app

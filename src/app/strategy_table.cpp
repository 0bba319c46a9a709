#include "app/strategy_table.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <future>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

struct Priced {
  Estimate estimate;
  Index memory = 0;
};

struct Line {
  std::string name, refusal;
  Grid grid;
  std::future<Priced> pending;
  Priced priced;
  bool roomy = false;  ///< more memory than auto spends
  bool legal() const { return refusal.empty(); }
};

std::string text(Index bytes) { return bytes_text(static_cast<double>(bytes)); }

void print(const Line& line, const Job& job, json& out) {
  json twin{{"name", line.name},
            {"grid", line.legal() ? to_text(line.grid) : "-"},
            {"legal", line.legal()},
            {"chosen", line.name == job.strategy}};
  if (!line.legal()) {
    twin["verdict"] = line.refusal;
    std::printf("    %-12s %-12s %s\n", line.name.c_str(), "-", line.refusal.c_str());
    out["strategies"].push_back(std::move(twin));
    return;
  }
  const Estimate& e = line.priced.estimate;
  const bool chosen = line.name == job.strategy;
  std::string remark;
  if (line.grid.heads > job.shape.query_heads)
    remark += sentence("; ", job.place.ranks - line.grid.seats() * static_cast<int>(job.shape.query_heads),
                       " ranks without heads");
  if (line.roomy) remark += "; more memory than auto spends";
  if (e.sampled_every > 1) remark += sentence("; one of ", e.sampled_every, " steps simulated");
  std::printf("    %-12s %-12s %10s %6.1f %% %13s %14s %12s %7lld%s\n", line.name.c_str(), to_text(line.grid).c_str(),
              duration_text(e.seconds()).c_str(), 100 * e.exposed(), text(e.inside_bytes()).c_str(),
              text(e.network_bytes()).c_str(), text(line.priced.memory).c_str(), static_cast<long long>(e.steps),
              (remark + (chosen ? "   <- this plan" : "")).c_str());
  twin["verdict"] = sentence("legal: ", e.steps, e.steps == 1 ? " step" : " steps", remark);
  twin["steps"] = e.steps;
  twin["seconds"] = e.seconds();
  twin["forward_seconds"] = e.forward.seconds;
  twin["backward_seconds"] = e.backward.seconds;
  twin["compute_seconds"] = e.compute_seconds();
  twin["exposed_percent"] = 100 * e.exposed();
  twin["bytes_inside_nodes"] = e.inside_bytes();
  twin["bytes_between_nodes"] = e.network_bytes();
  twin["memory_bytes_per_rank"] = line.priced.memory;
  twin["bytes_total"] = e.total_bytes;
  twin["more_memory_than_auto_spends"] = line.roomy;
  out["strategies"].push_back(std::move(twin));
}

// Why one is faster than another, in the two parts of their times.
std::string reason(const Line& first, const Line& second) {
  const Estimate &a = first.priced.estimate, &b = second.priced.estimate;
  const double less = b.seconds() > 0 ? 100 * (1 - a.seconds() / b.seconds()) : 0;
  const auto waits = [](const Estimate& e) { return std::max(0.0, e.seconds() - e.compute_seconds()); };
  const double waits_a = waits(a), waits_b = waits(b);
  std::string why =
      less < 0.5 ? sentence("as fast as ", second.name) : sentence(std::lround(less), " % less than ", second.name);
  const bool by_waiting = waits_b - waits_a >= b.compute_seconds() - a.compute_seconds();
  const std::string mine = duration_text(by_waiting ? waits_a : a.compute_seconds()),
                    other = duration_text(by_waiting ? waits_b : b.compute_seconds());
  if (mine != other)
    why += sentence(by_waiting ? ": its exposed exchange and waiting are " : ": its busiest rank computes ", mine,
                    " and not ", other);
  return why;
}

// Why the plan is not the fastest of the table.
std::string why_another(const Line& best, const Job& job, double seconds) {
  const std::string taken = sentence(job.strategy, " ", to_text(job.schedule.grid));
  if (!job.by_auto) return sentence(taken, " was asked for");
  if (best.roomy) return sentence("auto took ", taken, ": the other needs more memory than it spends");
  const double more = 100 * (seconds / best.priced.estimate.seconds() - 1);
  if (more > 2.05) return sentence("auto took ", taken, ", since it simulates fewer steps of so many ranks");
  constexpr int few = 64;  // beyond, candidates are looked at in another order
  return sentence("auto took ", taken, ", ", static_cast<double>(std::lround(10 * more)) / 10,
                  " % slower: it keeps the ", job.place.ranks <= few ? "plainer" : "first that it looked at",
                  " of two that differ by less than 2 %");
}

void print_fastest(const std::vector<Line>& lines, const Job& job, const Estimate& mine, json& out) {
  std::vector<const Line*> order;
  for (const Line& line : lines)
    if (line.legal()) order.push_back(&line);
  if (order.empty()) return;
  std::ranges::stable_sort(order, {}, [&](const Line* line) {  // of equals the plan itself
    return std::pair(line->priced.estimate.seconds(), line->name != job.strategy);
  });
  const Line& best = *order.front();
  std::string why = sentence(best.name, " ", to_text(best.grid), ", ", duration_text(best.priced.estimate.seconds()));
  why += order.size() > 1 ? ", " + reason(best, *order[1]) : ", the only one that is legal";
  std::printf("  fastest         %s\n", why.c_str());
  out["fastest"] = {{"name", best.name}, {"reason", why}};
  if (best.name == job.strategy) return;
  const std::string another = why_another(best, job, mine.seconds());
  std::printf("                  %s\n", another.c_str());
  out["fastest"]["why_another_was_taken"] = another;
}

}  // namespace

void print_strategies(const Job& job, const Estimate& mine, const Prices& prices, json& out) {
  const Placement& place = job.place;
  const auto price = [&](const Grid& grid) {
    if (grid == job.schedule.grid) return Priced{mine, footprint(job.schedule, mine.buffer_rows, prices).total()};
    const Schedule other = make_schedule(grid, job.schedule.queries.name(), job.schedule.mask, job.weights);
    Estimate e = estimate(other, prices);
    const Index memory = footprint(other, e.buffer_rows, prices).total();
    return Priced{std::move(e), memory};
  };
  std::vector<Line> lines;
  for (const Strategy& strategy : strategies()) {
    Line& line = lines.emplace_back();
    line.name = strategy.name;
    try {
      line.grid = strategy.name == job.strategy
                      ? job.schedule.grid
                      : strategy.grid({place.ranks, place.ranks_per_node, job.shape.query_heads, job.shape.kv_heads});
      line.pending = std::async(std::launch::async, price, line.grid);
    } catch (const Error& e) {
      line.refusal = e.what();
    }
  }
  std::printf("    %-12s %-12s %10s %8s %13s %14s %12s %7s\n", "strategy", "grid", "time", "exposed", "inside nodes",
              "between nodes", "memory/rank", "steps");
  const Schedule ring = make_schedule({1, place.ranks, 1}, job.schedule.queries.name(), job.schedule.mask, job.weights);
  const Index most = most_memory(ring, prices);
  for (Line& line : lines) {
    if (line.legal()) line.priced = line.pending.get();
    line.roomy = line.legal() && line.priced.memory > most;
    print(line, job, out);
  }
  print_fastest(lines, job, mine, out);
}

}  // namespace annulus::app

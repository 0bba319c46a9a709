#include "app/strategy_table.hpp"

#include <cmath>
#include <cstdio>
#include <future>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/progress.hpp"

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
  json twin{{"name", line.name}, {"grid", line.legal() ? to_text(line.grid) : "-"}};
  if (!line.legal()) {
    twin["verdict"] = line.refusal;
    std::printf("    %-12s %-12s %s\n", line.name.c_str(), "-", line.refusal.c_str());
    out["strategies"].push_back(std::move(twin));
    return;
  }
  const Estimate& e = line.priced.estimate;
  std::string remark;
  if (line.grid.heads > job.shape.query_heads)
    remark += sentence("; ", job.place.ranks - line.grid.seats() * static_cast<int>(job.shape.query_heads),
                       " ranks without heads");
  if (line.roomy) remark += "; more memory than auto spends";
  if (e.sampled_every > 1) remark += sentence("; one of ", e.sampled_every, " steps simulated");
  if (line.grid == job.schedule.grid) remark += "   <- this plan";
  std::printf("    %-12s %-12s %10s %6.1f %% %13s %14s %12s %7lld%s\n", line.name.c_str(), to_text(line.grid).c_str(),
              seconds_text(e.seconds()).c_str(), 100 * e.exposed(), text(e.inside_bytes()).c_str(),
              text(e.network_bytes()).c_str(), text(line.priced.memory).c_str(), static_cast<long long>(e.steps),
              remark.c_str());
  twin["verdict"] = sentence("legal: ", e.steps, e.steps == 1 ? " step" : " steps", remark);
  twin["steps"] = e.steps;
  twin["seconds"] = e.seconds();
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
  const double waits_a = a.seconds() - a.compute_seconds(), waits_b = b.seconds() - b.compute_seconds();
  std::string why =
      less < 0.5 ? sentence("as fast as ", second.name) : sentence(std::lround(less), " % less than ", second.name);
  const bool by_waiting = waits_b - waits_a >= b.compute_seconds() - a.compute_seconds();
  why += by_waiting ? sentence(": its exposed exchange and waiting are ", seconds_text(waits_a), " and not ",
                               seconds_text(waits_b))
                    : sentence(": its busiest rank computes ", seconds_text(a.compute_seconds()), " and not ",
                               seconds_text(b.compute_seconds()));
  return why;
}

void print_fastest(std::vector<Line>& lines, json& out) {
  std::vector<const Line*> order;
  for (const Line& line : lines)
    if (line.legal()) order.push_back(&line);
  if (order.empty()) return;
  std::ranges::stable_sort(order, {}, [](const Line* line) { return line->priced.estimate.seconds(); });
  const Line& best = *order.front();
  std::string why = sentence(best.name, " ", to_text(best.grid), ", ", seconds_text(best.priced.estimate.seconds()));
  why += order.size() > 1 ? ", " + reason(best, *order[1]) : ", the only one that is legal";
  std::printf("  fastest         %s\n", why.c_str());
  out["fastest"] = {{"name", best.name}, {"reason", why}};
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
  const Schedule ring =
      make_schedule({1, place.ranks, 1}, job.schedule.queries.name(), job.schedule.mask, job.weights);
  const Index most = most_memory(ring, prices);
  for (Line& line : lines) {
    if (line.legal()) line.priced = line.pending.get();
    line.roomy = line.legal() && line.priced.memory > most;
    print(line, job, out);
  }
  print_fastest(lines, out);
}

}  // namespace annulus::app

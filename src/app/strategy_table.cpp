#include "app/strategy_table.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <future>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

std::string text(Index bytes) { return bytes_text(static_cast<double>(bytes)); }

void print(const StrategyLine& line, const Job& job, json& out) {
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
  const Estimate& e = line.estimate;
  const bool chosen = line.name == job.strategy;
  std::string remark;
  if (const Index idle = job.place.ranks - line.grid.seats() * job.shape.query_heads;
      line.grid.heads > job.shape.query_heads)
    remark += sentence("; ", idle, idle == 1 ? " rank" : " ranks", " without heads");
  if (line.roomy) remark += "; more memory than auto spends";
  if (e.sampled_every > 1) remark += sentence("; one of ", e.sampled_every, " steps simulated");
  std::printf("    %-12s %-12s %10s %6.1f %% %13s %14s %12s %7lld%s\n", line.name.c_str(), to_text(line.grid).c_str(),
              duration_text(e.seconds()).c_str(), 100 * e.exposed(), text(e.inside_bytes()).c_str(),
              text(e.network_bytes()).c_str(), text(line.memory).c_str(), static_cast<long long>(e.steps),
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
  twin["memory_bytes_per_rank"] = line.memory;
  twin["bytes_total"] = e.total_bytes;
  twin["more_memory_than_auto_spends"] = line.roomy;
  out["strategies"].push_back(std::move(twin));
}

// Why one is faster than another, in the two parts of their times.
std::string reason(const StrategyLine& first, const StrategyLine& second) {
  const Estimate &a = first.estimate, &b = second.estimate;
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
std::string why_another(const StrategyLine& best, const Job& job, double seconds) {
  const std::string taken = sentence(job.strategy, " ", to_text(job.schedule.grid));
  if (!job.by_auto) return sentence(taken, " was asked for");
  if (best.roomy) return sentence("auto took ", taken, ": the other needs more memory than it spends");
  const double more = 100 * (seconds / best.estimate.seconds() - 1);
  return sentence("auto took ", taken, ", ", static_cast<double>(std::lround(10 * more)) / 10,
                  " % slower: of two that differ by less than 2 % the plainer, or what needs no more steps, bytes and "
                  "memory");
}

void print_fastest(const std::vector<StrategyLine>& lines, const Job& job, const Estimate& mine, json& out) {
  std::vector<const StrategyLine*> order;
  for (const StrategyLine& line : lines)
    if (line.legal()) order.push_back(&line);
  if (order.empty()) return;
  std::ranges::stable_sort(order, {}, [&](const StrategyLine* line) {  // of equals the plan itself
    return std::pair(line->estimate.seconds(), line->name != job.strategy);
  });
  const StrategyLine& best = *order.front();
  std::string why = sentence(best.name, " ", to_text(best.grid), ", ", duration_text(best.estimate.seconds()));
  why += order.size() > 1 ? ", " + reason(best, *order[1]) : ", the only one that is legal";
  std::printf("  fastest         %s\n", why.c_str());
  out["fastest"] = {{"name", best.name}, {"reason", why}};
  if (best.name == job.strategy) return;
  const std::string another = why_another(best, job, mine.seconds());
  std::printf("                  %s\n", another.c_str());
  out["fastest"]["why_another_was_taken"] = another;
}

}  // namespace

std::vector<StrategyLine> price_strategies(const Planned& plan, const std::function<void()>& priced) {
  const Job& job = plan.job;
  const Placement& place = job.place;
  const auto scheduled = [&](const Grid& grid) {
    return make_schedule(grid, job.schedule.queries.name(), job.schedule.mask, job.weights);
  };
  const Index most = most_memory(scheduled({1, place.ranks, 1}), plan.prices) + plan.trace_bytes;
  const auto price = [&](StrategyLine& line) {
    const bool mine = line.grid == job.schedule.grid;
    const Schedule schedule = mine ? job.schedule : scheduled(line.grid);
    line.estimate = mine ? plan.estimate : estimate_of(job, schedule, plan.prices);
    line.memory = footprint(schedule, line.estimate.buffer_rows, plan.prices).total() + plan.trace_bytes;
    line.roomy = line.memory > most;
  };
  std::vector<StrategyLine> lines(strategies().size());
  std::vector<std::future<void>> pending;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    StrategyLine& line = lines[i];
    line.name = strategies()[i].name;
    try {
      line.grid =
          line.name == job.strategy
              ? job.schedule.grid
              : strategies()[i].grid({place.ranks, place.ranks_per_node, job.shape.query_heads, job.shape.kv_heads});
      pending.push_back(std::async(std::launch::async, price, std::ref(line)));
    } catch (const Error& e) {
      line.refusal = e.what();
    }
  }
  for (std::future<void>& one : pending) {
    one.get();
    priced();
  }
  return lines;
}

void print_strategies(const std::vector<StrategyLine>& lines, const Planned& plan, json& out) {
  std::printf("    %-12s %-12s %10s %8s %13s %14s %12s %7s\n", "strategy", "grid", "time", "exposed", "inside nodes",
              "between nodes", "memory/rank", "steps");
  for (const StrategyLine& line : lines) print(line, plan.job, out);
  print_fastest(lines, plan.job, plan.estimate, out);
}

}  // namespace annulus::app

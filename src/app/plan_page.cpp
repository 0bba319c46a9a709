#include "app/plan_page.hpp"

#include <algorithm>
#include <cstdio>

#include "annulus/base/error.hpp"
#include "annulus/geometry/meet.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/plan/draw.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

std::string text(Index bytes) { return bytes_text(static_cast<double>(bytes)); }

// Whose blocks each seat works on, step by step: all of them, or of a long plan the corner that is drawn.
json visits_of(const Schedule& schedule) {
  constexpr Index most_cells = 4096;
  const int seats = schedule.planner.seats(), steps = schedule.planner.steps();
  const bool whole = Index{seats} * steps <= most_cells;
  const int shown_seats = whole ? seats : std::min(seats, 16), shown_steps = whole ? steps : std::min(steps, 10);
  json rows = json::array();
  for (Rank seat = 0; seat < shown_seats; ++seat) {
    const Plan plan = schedule.plan_of(seat);
    json& row = rows.emplace_back(json::array());
    for (int s = 0; s < shown_steps; ++s) {
      const Step& step = plan.steps[static_cast<std::size_t>(s)];
      json owners = json::array();
      for (const Move& block : step.held)
        if (!step.tiles.empty()) owners.push_back(block.seat);
      row.push_back({{"blocks_of", std::move(owners)}, {"pairs", pairs(step.tiles)}});
    }
  }
  return {{"complete", whole}, {"by_seat_and_step", std::move(rows)}};
}

// The drawing, and a line per step: work, balance, rows moved.
void print_steps(const Schedule& schedule, const Estimate& e, Index row_bytes, json& out) {
  std::printf("%s\n  step            pairs   busiest/mean       rows moved   most bytes into a rank\n",
              draw(schedule).c_str());
  out["visits"] = visits_of(schedule);
  out["steps"] = json::array();
  constexpr std::size_t shown = 24;
  for (std::size_t s = 0; s < e.by_step.size(); ++s) {
    const StepSum& step = e.by_step[s];
    const double balance =
        step.pairs == 0 ? 1.0 : step.longest * schedule.planner.seats() / static_cast<double>(step.pairs);
    out["steps"].push_back({{"pairs", step.pairs},
                            {"busiest_over_mean", balance},
                            {"rows_moved", step.rows},
                            {"most_bytes_into_a_rank", step.most_rows * row_bytes}});
    if (s < shown)
      std::printf("  %4zu %16s %14.3f %16s %24s\n", s, grouped(step.pairs).c_str(), balance,
                  grouped(step.rows * schedule.grid.heads).c_str(), text(step.most_rows * row_bytes).c_str());
  }
  if (e.by_step.size() > shown) std::printf("   ... %zu more steps\n", e.by_step.size() - shown);
}

// Which ranks share a node, and what crosses between nodes.
void print_nodes(const Job& job, const Estimate& e, json& out) {
  const int ranks = job.place.ranks, each = job.place.ranks_per_node;
  out["node_bytes_total"] = e.node_bytes;
  if (each >= ranks) return;
  constexpr int shown = 4;
  std::string map;
  for (int node = 0; node * each < ranks; ++node) {
    const int last = std::min(ranks, (node + 1) * each) - 1;
    out["nodes"].push_back({{"first_rank", node * each}, {"last_rank", last}});
    if (node < shown) map += sentence(node > 0 ? ", " : "", node, ": ranks ", node * each, "-", last);
    if (node == shown) map += ", ...";
  }
  const Grid& grid = job.schedule.grid;
  const int ring = grid.heads * grid.inner;  // neighbouring ranks
  std::printf("  nodes           %s; an inner ring of %d %s; %s cross between nodes\n", map.c_str(), grid.inner,
              each % ring == 0 ? "stays inside a node" : "spans nodes", text(e.node_bytes).c_str());
}

void print_memory(const Planned& plan, json& out) {
  const Footprint most = footprint(plan.job.schedule, plan.estimate.buffer_rows, plan.prices);
  const Index total = most.total() + plan.trace_bytes;
  std::string parts = sentence("inputs ", text(most.inputs), ", results ", text(most.results), ", visiting blocks ",
                               text(most.blocks), ", head exchange ", text(most.heads));
  if (plan.trace_bytes > 0) parts += ", traces " + text(plan.trace_bytes);
  std::printf("  memory          %s per rank at most: %s\n", text(total).c_str(), parts.c_str());
  out["memory_bytes_per_rank"] = total;
  out["memory_bytes"] = {{"inputs", most.inputs},
                         {"results", most.results},
                         {"visiting_blocks", most.blocks},
                         {"head_exchange", most.heads},
                         {"traces", plan.trace_bytes}};
}

void print_files(const FileBytes& files, json& out) {
  const auto sum = [&](const char* key, const auto& datasets) {
    Index total = 0;
    std::string names;
    for (const auto& [name, bytes] : datasets) {
      total += bytes;
      names += (names.empty() ? "" : ", ") + name;
      out["file_bytes"][key][name] = bytes;
    }
    out["file_bytes"][key]["total"] = total;
    return sentence(text(total), " (", names, ")");
  };
  const std::string read = sum("read", files.read), written = sum("written", files.write);
  std::printf("  files           attend reads %s and writes %s\n", read.c_str(), written.c_str());
}

void print_time(const Planned& plan, json& out) {
  const Estimate& e = plan.estimate;
  const auto time = [](double seconds) { return duration_text(seconds); };
  const std::string sum = plan.prices.backward ? sentence("forward ", time(e.forward.seconds), " + backward ",
                                                          time(e.backward.seconds), " = ", time(e.seconds()))
                                               : time(e.seconds());
  std::printf(
      "  time            %s, of which the busiest rank computes %s and %.1f %% are exposed exchange and waiting\n",
      sum.c_str(), time(e.compute_seconds()).c_str(), 100 * e.exposed());
  if (plan.trace_bytes > 0) std::printf("                  without the pass that collects traces\n");
  out["seconds"] = e.seconds();
  out["forward_seconds"] = e.forward.seconds;
  if (plan.prices.backward) out["backward_seconds"] = e.backward.seconds;
  out["compute_seconds"] = e.compute_seconds();
  out["exposed_percent"] = 100 * e.exposed();
}

}  // namespace

void print_schedule(const Planned& plan, json& out) {
  const Schedule& schedule = plan.job.schedule;
  const bool as_ring = plan.prices.backward && schedule.grid.travel == Travel::tree;
  if (as_ring) std::printf("  forward, as a tree\n");
  print_steps(schedule, plan.estimate, plan.estimate.row_bytes, out);
  if (!plan.prices.backward) return;
  if (!as_ring) {
    std::printf("\n  backward goes through the same steps once more; sums of gradients travel, too\n");
    return;
  }
  const Schedule ring = ring_of(schedule);
  const Estimate e = estimate(ring, plan.prices);
  std::printf("\n  backward, as a ring over the same shards\n");
  print_steps(ring, e, e.backward_row_bytes, out["backward_as_ring"]);
}

void print_costs(const Planned& plan, json& out) {
  const Estimate& e = plan.estimate;
  const Mask& mask = plan.job.schedule.mask;
  const int seats = plan.job.schedule.grid.seats();
  const double imbalance = e.imbalance(seats), in_all = e.imbalance_in_all(seats);
  std::printf(
      "\n  visible pairs   %s (%.1f %% of all), imbalance %.3f step by step, %.3f in all (1 = perfectly even)\n",
      grouped(e.pairs).c_str(),
      100 * static_cast<double>(e.pairs) /
          std::max(1.0, static_cast<double>(mask.queries()) * static_cast<double>(mask.keys())),
      imbalance, in_all);
  out["pairs"] = e.pairs;
  out["imbalance"] = imbalance;
  out["imbalance_in_all"] = in_all;
  std::printf("  exchange        %s into the busiest rank, %s in all; head exchange %s\n",
              text(e.block_bytes_received).c_str(), text(e.total_bytes).c_str(), text(e.exchange_bytes).c_str());
  if (e.total_bytes > 0)
    std::printf("                  a ring of whole K/V blocks would move %s, %.2f times as much\n",
                bytes_text(e.whole_bytes).c_str(), e.whole_bytes / static_cast<double>(e.total_bytes));
  out["exchange_bytes_into_busiest_rank"] = e.block_bytes_received;
  out["head_exchange_bytes_into_busiest_rank"] = e.exchange_bytes;
  out["exchange_bytes_total"] = e.total_bytes;
  out["whole_ring_bytes_total"] = e.whole_bytes;
  out["bytes_inside_nodes"] = e.inside_bytes();
  out["bytes_between_nodes"] = e.network_bytes();
  print_nodes(plan.job, e, out);
  print_memory(plan, out);
  print_files(plan.files, out);
  print_time(plan, out);
}

void print_legality(const Job& job, json& out) {
  std::printf("\n  what is legal, and why\n    %-12s %-9s %-9s %-9s\n", "strategy", "forward", "backward", "traces");
  for (const Strategy& strategy : strategies()) {
    const bool tree = strategy.travel == Travel::tree, queries = queries_travel(strategy.travel);
    std::string forward = "yes", backward = tree ? "as ring" : "yes", traces = queries ? "as ring" : "yes",
                why(strategy.what);
    try {
      strategy.grid({job.place.ranks, job.place.ranks_per_node, job.shape.query_heads, job.shape.kv_heads});
    } catch (const Error& e) {
      forward = backward = traces = "no";
      why = e.what();
    }
    std::printf("    %-12s %-9s %-9s %-9s %s\n", std::string(strategy.name).c_str(), forward.c_str(), backward.c_str(),
                traces.c_str(), why.c_str());
    out["legality"].push_back(
        {{"name", strategy.name}, {"forward", forward}, {"backward", backward}, {"traces", traces}, {"why", why}});
  }
  std::printf(
      "    auto takes the least time of these, of all even splits of heads and of all partitions, in at most 5 times\n"
      "    the memory of a ring; of two that differ by less than 2 %% the plainer, or what needs no more steps, bytes "
      "and\n"
      "    memory\n");
}

}  // namespace annulus::app

#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/plan/draw.hpp"
#include "app/commands/commands.hpp"
#include "app/job.hpp"
#include "app/progress.hpp"
#include "app/strategy_table.hpp"
#include "app/tensors.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

constexpr int most_ranks = 65536;  // pricing looks at ranks^2 pairs of shards

struct Subject {
  AttentionShape shape;
  Mask mask;
};

constexpr Index most_documents = Index{1} << 20;

Subject subject_of(const Settings& s, bool backward, const std::optional<Hardware>& hardware) {
  if (!s.positional().empty()) {
    TensorInput input = open_tensors(s.positional().front(), s, backward);
    return {input.shape, input.mask};
  }
  Extent extent{s.count("tokens"), s.has("keys") ? s.count("keys") : s.count("tokens"), {}};
  require(extent.queries <= far / 4 && extent.keys <= far / 4, "--tokens and --keys must be below 2^58");
  if (s.has("document-tokens")) {
    const Index each = s.count("document-tokens", 1);
    require(extent.queries / each < most_documents, s.name_of("document-tokens"), " must not make more than ",
            most_documents, " documents: ", extent.queries, " tokens / ", each, " are more");
    extent.documents = equal_documents(extent.queries, each);
  }
  AttentionShape shape{s.count("query-heads", 1),
                       s.has("kv-heads") ? s.count("kv-heads", 1) : s.count("query-heads", 1),
                       s.count("channels", 1),
                       s.has("value-channels") ? s.count("value-channels", 1) : s.count("channels", 1),
                       s.has("dtype") ? parse_dtype(s.text("dtype"))
                       : hardware     ? hardware->known_type(DType::f32)
                                      : DType::f32,
                       0};
  shape.softmax_scale = 1 / std::sqrt(static_cast<double>(shape.channels));
  return {shape, Mask::parse(s.text("mask"), extent)};
}

// A line per step: work, balance, rows moved.
void print_steps(const Job& job, const Estimate& e, json& out) {
  const Index lanes = job.schedule.grid.heads;
  std::printf("\n  step            pairs   busiest/mean       rows moved   most bytes into a rank\n");
  constexpr std::size_t shown = 24;
  for (std::size_t s = 0; s < e.by_step.size(); ++s) {
    const StepSum& step = e.by_step[s];
    const double balance = step.pairs == 0 ? 1.0
                                           : step.longest * job.schedule.planner.seats() /
                                                 static_cast<double>(step.pairs);
    out["steps"].push_back({{"pairs", step.pairs},
                            {"busiest_over_mean", balance},
                            {"rows_moved", step.rows},
                            {"most_bytes_into_a_rank", step.most_rows * e.row_bytes}});
    if (s < shown)
      std::printf("  %4zu %16s %14.3f %16s %24s\n", s, grouped(step.pairs).c_str(), balance,
                  grouped(step.rows * lanes).c_str(),
                  bytes_text(static_cast<double>(step.most_rows * e.row_bytes)).c_str());
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
  std::printf("  nodes           %s; an inner ring of %d %s; %s cross between nodes\n", map.c_str(), ring,
              each % ring == 0 ? "stays inside a node" : "spans nodes",
              bytes_text(static_cast<double>(e.node_bytes)).c_str());
}

// What each strategy does in each pass, or why it cannot be had.
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
      "    the memory of a ring; the plainer of two that differ by less than 2 %%\n");
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  const bool backward = settings.text("pass") == "backward";
  const std::optional<Hardware> hardware = hardware_of(settings);
  const Subject subject = subject_of(settings, backward, hardware);
  Placement place{1, 1, 1};
  place.ranks = narrow(settings.has("ranks") ? settings.count("ranks", 1) : context.under_mpi() ? context.ranks(0) : 4);
  require(place.ranks <= most_ranks, settings.name_of("ranks"), " must be at most ", most_ranks,
          " in this version: it is ", place.ranks);
  place.ranks_per_node = settings.has("ranks-per-node") ? narrow(settings.count("ranks-per-node", 1))
                         : hardware                     ? std::min(place.ranks, hardware->ranks_per_node)
                                                        : place.ranks;
  const Job job = make_job(settings, place, subject.shape, subject.mask, backward);
  const Prices prices = prices_of(settings, place, job.shape, backward);
  const Estimate e = estimate(job.schedule, prices);
  const Footprint most = footprint(job.schedule, e.buffer_rows, prices);

  const AttentionShape& s = job.shape;
  const auto text = [](Index bytes) { return bytes_text(static_cast<double>(bytes)); };
  std::printf("annulus plan: %s queries x %s keys, %lld:%lld heads, %lld:%lld channels, %s, mask %s, %s\n",
              grouped(subject.mask.queries()).c_str(), grouped(subject.mask.keys()).c_str(),
              static_cast<long long>(s.query_heads), static_cast<long long>(s.kv_heads),
              static_cast<long long>(s.channels), static_cast<long long>(s.value_channels),
              std::string(name_of(s.type)).c_str(), subject.mask.name().c_str(), settings.text("pass").c_str());
  std::printf("  %d ranks: %s, grid %s, partition %s (%s)\n\n%s", place.ranks, job.strategy.c_str(),
              to_text(job.schedule.grid).c_str(), job.schedule.queries.name().c_str(), job.reason.c_str(),
              draw(job.schedule).c_str());
  json out{{"strategy", job.strategy},
           {"grid", to_text(job.schedule.grid)},
           {"partition", job.schedule.queries.name()},
           {"reason", job.reason},
           {"ranks", place.ranks},
           {"mask", subject.mask.name()},
           {"pairs", e.pairs},
           {"imbalance", e.imbalance(job.schedule.grid.seats())},
           {"block_bytes_into_busiest_rank", e.block_bytes_received},
           {"exchange_bytes_into_busiest_rank", e.exchange_bytes},
           {"block_bytes_total", e.total_bytes},
           {"whole_ring_bytes_total", e.whole_bytes},
           {"memory_bytes_per_rank", most.total()},
           {"prices", hardware ? hardware->name : "nominal"},
           {"seconds", e.seconds()},
           {"compute_seconds", e.compute_seconds()},
           {"exposed_percent", 100 * e.exposed()},
           {"bytes_inside_nodes", e.inside_bytes()},
           {"bytes_between_nodes", e.network_bytes()},
           {"steps", json::array()},
           {"strategies", json::array()}};
  print_steps(job, e, out);
  std::printf("\n  visible pairs   %s (%.1f %% of all), imbalance %.3f (1 = every step perfectly even)\n",
              grouped(e.pairs).c_str(),
              100 * static_cast<double>(e.pairs) /
                  std::max(1.0, static_cast<double>(subject.mask.queries()) * static_cast<double>(subject.mask.keys())),
              e.imbalance(job.schedule.grid.seats()));
  std::printf("  exchange        %s into the busiest rank, %s in all; head exchange %s\n",
              text(e.block_bytes_received).c_str(), text(e.total_bytes).c_str(), text(e.exchange_bytes).c_str());
  if (e.total_bytes > 0)
    std::printf("                  a ring of whole K/V blocks would move %s, %.2f times as much\n",
                text(e.whole_bytes).c_str(), static_cast<double>(e.whole_bytes) / static_cast<double>(e.total_bytes));
  print_nodes(job, e, out);
  std::printf("  memory          %s per rank at most: inputs %s, results %s, visiting blocks %s, head exchange %s\n",
              text(most.total()).c_str(), text(most.inputs).c_str(), text(most.results).c_str(),
              text(most.blocks).c_str(), text(most.heads).c_str());
  std::printf(
      "  time            %s, of which the busiest rank computes %s and %.1f %% are exposed exchange and waiting\n",
      seconds_text(e.seconds()).c_str(), seconds_text(e.compute_seconds()).c_str(), 100 * e.exposed());
  std::printf("\n  strategies for this request on the partition %s, ", job.schedule.queries.name().c_str());
  if (hardware) {
    std::printf("predicted for %s\n", hardware->name.c_str());
  } else {
    std::printf("at nominal prices: a few CPU cores, one kind of link (--hardware FILE predicts)\n");
  }
  print_strategies(job, e, prices, out);
  if (settings.flag("explain")) print_legality(job, out);
  if (settings.has("json")) {
    std::ofstream file(settings.text("json"));
    file << out.dump(2) << '\n';
    require<Failure::file>(file.good(), settings.name_of("json"), " cannot be written: ", settings.text("json"));
  }
  return 0;
}

}  // namespace

Command plan_command() {
  return {.name = "plan",
          .summary = "what would happen: who computes what when, bytes, memory; starts nothing",
          .arguments = {"[INPUT.h5]", 0, 1},
          .options = joined({shape_options(),
                             {{.name = "document-tokens",
                               .value = "N",
                               .group = "Shape",
                               .help = "equal documents of so many tokens, for the mask term documents",
                               .check = whole_number(1)},
                              {.name = "pass",
                               .value = "forward|backward",
                               .fallback = "forward",
                               .group = "Attention",
                               .help = "which pass to plan"},
                              {.name = "softmax-scale",
                               .value = "X",
                               .fallback = "(1/sqrt(channels))",
                               .group = "Attention",
                               .help = "factor on q.k",
                               .check = positive_number()},
                              mask_option("causal"),
                              dtype_option("(as the input, else f32)")},
                             plan_options("(mpirun's, else 4)"),
                             {{.name = "ranks-per-node",
                               .value = "N",
                               .fallback = "(all)",
                               .group = "Distribution",
                               .help = "ranks that share a node",
                               .check = whole_number(1)},
                              {.name = "explain",
                               .group = "Output",
                               .help = "also what each strategy does in each pass, or why it is refused"},
                              {.name = "json", .value = "FILE", .group = "Output", .help = "the same for machines"}}}),
          .examples = {"annulus plan --tokens 1M --ranks 8 --mask causal",
                       "annulus plan --tokens 64Ki --ranks 64 --mask window:4095,0",
                       "annulus plan qkv.h5 --ranks 4 --strategy ulysses --json plan.json"},
          .run = run};
}

}  // namespace annulus::app

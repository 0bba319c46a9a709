#include "app/job.hpp"

#include <algorithm>
#include <charconv>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"

namespace annulus::app {
namespace {

constexpr Index most_threads = 4096, most_nccl_blocks = 1024;

std::vector<double> weights_of(const Settings& settings, int ranks) {
  std::vector<double> weights;
  if (!settings.has("weights")) return weights;
  const std::string& text = settings.text("weights");
  require(text != measured_weights, settings.name_of("weights"),
          " measured needs ranks that run: give the numbers that a run wrote down (attribute weights of its result)");
  const char* at = text.data();
  const char* end = at + text.size();
  for (; at < end; ++at) {
    double weight = 0;
    const auto [stop, problem] = std::from_chars(at, end, weight);
    require(problem == std::errc{} && (stop == end || *stop == ','), settings.name_of("weights"),
            " must be numbers joined by commas: it is '", text, "'");
    weights.push_back(weight);
    at = stop;
  }
  require(weights.size() == static_cast<std::size_t>(ranks), settings.name_of("weights"),
          " must have one number per rank: it has ", weights.size(), " for ", ranks, " ranks");
  return weights;
}

}  // namespace

std::vector<Option> plan_options(std::string ranks_fallback) {
  const std::string group = "Distribution";
  return {
      {.name = "strategy",
       .value = "NAME",
       .fallback = "auto",
       .group = group,
       .help = "auto, ring, double-ring, ulysses, hybrid, all-gather, pass-q or tree"},
      {.name = "grid",
       .value = "HxIxO",
       .group = group,
       .help = "head shares x inner ring x outer ring, for example 2x4x1",
       .check = [](std::string_view text) { parse_grid(text); }},
      {.name = "partition",
       .value = "auto|contiguous|zigzag|striped|balanced",
       .fallback = "auto",
       .group = group,
       .help = "which rank owns which tokens"},
      {.name = "weights",
       .value = "W,W,...",
       .group = group,
       .help = "relative speeds of the ranks: what --partition balanced shares out by, and plans are priced by; "
               "or the word measured: as their processors' arithmetic is now (run, attend, bench)"},
      {.name = "ranks",
       .value = "P",
       .fallback = std::move(ranks_fallback),
       .group = group,
       .help = "ranks; without mpirun they are threads of this process",
       .check = whole_number(1)},
      {.name = "hardware",
       .value = "FILE",
       .group = group,
       .help = "profile to predict and to choose by (configs/hardware, or what bench calibrate wrote)"},
  };
}

std::vector<Option> machine_options() {
  const std::string group = "Distribution";
  return {
      {.name = "threads",
       .value = "N",
       .fallback = "(cores / ranks on the node)",
       .group = group,
       .help = "threads per rank",
       .check = whole_number(1, most_threads)},
      {.name = "device", .value = "auto|cpu|cuda", .fallback = "auto", .group = group, .help = "where to compute"},
      {.name = "kernel",
       .value = "NAME",
       .fallback = "auto",
       .group = group,
       .help = "auto, fast, or a name that `annulus info` lists\n"
               "(fast: as auto, but f32 and f16 may be multiplied to 16 bits where that is faster, with AMX)"},
      {.name = "transport",
       .value = "auto|nccl|shared|mpi|threads",
       .fallback = "auto",
       .group = group,
       .help = "how blocks travel; shared: processes of a node read them where they lie, mpi between nodes\n"
               "(auto: where several share a node; threads always do)"},
      {.name = "share-gpu", .group = group, .help = "several ranks may use one GPU: slow, for tests"},
      {.name = "nccl-blocks",
       .value = "N",
       .fallback = "(by tokens per rank)",
       .group = group,
       .help = "blocks of threads of a GPU that NCCL may use",
       .check = whole_number(1, most_nccl_blocks)},
      {.name = "timeout",
       .value = "SECONDS",
       .fallback = "600",
       .group = group,
       .help = "a rank that waits longer for another ends the job",
       .check = positive_number()},
      {.name = "deterministic",
       .group = group,
       .help = "the same plan gives the same bits, whatever the timing (always so on CPUs)"},
  };
}

std::vector<Option> distribution_options() { return joined({plan_options("(mpirun's, else 1)"), machine_options()}); }

Option mask_option(std::string fallback) {
  std::string help = "who sees whom, terms joined by '+':";
  for (const MaskTerm& term : mask_terms()) help += sentence("\n  ", term.usage, ": ", term.meaning);
  return {.name = "mask", .value = "TERMS", .fallback = std::move(fallback), .group = "Attention", .help = help};
}

bool names_term(std::string_view mask, std::string_view term) {
  return sentence("+", mask, "+").find(sentence("+", term, "+")) != std::string::npos;
}

Option dtype_option(std::string fallback) {
  return {.name = "dtype",
          .value = "f32|bf16|f16",
          .fallback = std::move(fallback),
          .group = "Attention",
          .help = "storage and exchange; accumulation is f32"};
}

Option softmax_scale_option() {
  return {.name = "softmax-scale",
          .value = "X",
          .fallback = "(1/sqrt(channels))",
          .group = "Attention",
          .help = "factor on q.k before the softmax",
          .check = positive_number()};
}

std::vector<Option> shape_options() {
  const std::string group = "Shape";
  return {
      {.name = "tokens", .value = "N", .fallback = "64Ki", .group = group, .help = "queries", .check = whole_number(0)},
      {.name = "keys",
       .value = "N",
       .fallback = "(as many as tokens)",
       .group = group,
       .help = "keys",
       .check = whole_number(0)},
      {.name = "query-heads",
       .value = "H",
       .fallback = "8",
       .group = group,
       .help = "query heads",
       .check = whole_number(1)},
      {.name = "kv-heads",
       .value = "H",
       .fallback = "(query heads)",
       .group = group,
       .help = "key/value heads",
       .check = whole_number(1)},
      {.name = "channels",
       .value = "C",
       .fallback = "64",
       .group = group,
       .help = "of q and k, per head",
       .check = whole_number(1)},
      {.name = "value-channels",
       .value = "C",
       .fallback = "(channels)",
       .group = group,
       .help = "of v, per head",
       .check = whole_number(1)},
  };
}

std::vector<Option> trace_options(std::string fallback) {
  const std::string group = "Traces";
  return {
      {.name = "trace",
       .value = "none|summary|standard|edges|full",
       .fallback = std::move(fallback),
       .group = group,
       .help = "summary: statistics per query\nstandard: and received mass per key, and the block map\n"
               "edges: and the top keys of every query\nfull: all there is (the same as edges in this version)"},
      {.name = "top-k",
       .value = "K",
       .fallback = "8",
       .group = group,
       .help = "keys kept per query and head",
       .check = whole_number(1)},
      {.name = "sink-tokens",
       .value = "N",
       .fallback = "4",
       .group = group,
       .help = "first keys counted as sink",
       .check = whole_number(0)},
      {.name = "map-blocks",
       .value = "N",
       .fallback = "128",
       .group = group,
       .help = "blocks per side of the block map",
       .check = whole_number(1)},
  };
}

Option progress_option() {
  return {.name = "progress",
          .value = "auto|none|json",
          .fallback = "auto",
          .group = "Output",
          .help = "a bar with ETA on a terminal, plain lines elsewhere"};
}

std::vector<Option> output_options() {
  const std::string group = "Output";
  return {
      {.name = "output", .value = "FILE", .group = group, .help = "HDF5 file to write"},
      {.name = "overwrite", .group = group, .help = "replace an existing file"},
      progress_option(),
      {.name = "timeline", .value = "FILE", .group = group, .help = "Chrome/Perfetto JSON of what each rank did when"},
  };
}

std::vector<Option> joined(std::vector<std::vector<Option>> groups) {
  std::vector<Option> all;
  for (auto& group : groups)
    all.insert(all.end(), std::make_move_iterator(group.begin()), std::make_move_iterator(group.end()));
  return all;
}

std::vector<Index> equal_documents(Index tokens, Index each) {
  std::vector<Index> offsets{0};
  while (offsets.back() < tokens) offsets.push_back(std::min(tokens, offsets.back() + each));
  if (tokens == 0) offsets.push_back(0);
  return offsets;
}

Placement placement(const Settings& settings, const Context& context) {
  const int ranks = context.ranks(settings.has("ranks") ? settings.count("ranks", 1) : 0, settings.text("transport"));
  return {ranks, context.node_divisor(ranks), threads_of(settings, context, ranks)};
}

int threads_of(const Settings& settings, const Context& context, int ranks) {
  return context.threads_per_rank(ranks, settings.has("threads") ? settings.count("threads", 1) : 0);
}

Prices prices_of(const AttentionShape& shape, bool backward) {
  return {shape.query_heads, shape.kv_heads, shape.channels, shape.value_channels, bytes_of(shape.type), backward};
}

std::optional<Hardware> hardware_of(const Settings& settings) {
  if (!settings.has("hardware")) return std::nullopt;
  return read_hardware(settings.text("hardware"));
}

Prices prices_of(const Settings& settings, const Placement& place, const AttentionShape& shape, bool backward) {
  Prices prices = prices_of(shape, backward);
  prices.ranks_per_node = place.ranks_per_node;
  prices.weights = weights_of(settings, place.ranks);
  const auto hardware = hardware_of(settings);
  return hardware ? priced(prices, shape.type, *hardware, place.ranks_per_node, hardware->inside()) : prices;
}

Job make_job(const Settings& settings, const Placement& place, const AttentionShape& shape, const Mask& mask,
             bool backward, const Choosing& choosing) {
  check(shape);
  const std::string& strategy = settings.text("strategy");
  std::optional<Grid> grid;
  if (settings.has("grid")) grid = parse_grid(settings.text("grid"));
  if (strategy != "auto") {
    const Strategy& row = find_strategy(strategy);
    Grid own = grid ? *grid : row.grid({place.ranks, place.ranks_per_node, shape.query_heads, shape.kv_heads});
    own.travel = row.travel;
    require(!grid || place.ranks == 1 || strategy_of(own) == strategy, settings.name_of("grid"), " ", to_text(own),
            " is ", strategy_of(own), ", but the strategy is ", strategy);
    grid = own;
  }
  require(!grid || grid->ranks() == place.ranks, "the grid must have as many places as there are ranks: grid ",
          grid ? to_text(*grid) : "", " has ", grid ? grid->ranks() : 0, ", ranks = ", place.ranks);
  const auto weights = weights_of(settings, place.ranks);
  std::string partition = settings.text("partition");
  if (!weights.empty() && partition == "auto") partition = "balanced";
  std::string reason = "as asked for";
  const bool by_auto = !grid;
  std::vector<std::pair<Grid, Estimate>> priced;
  if (!grid || partition == "auto") {
    Prices prices = prices_of(settings, place, shape, backward);
    prices.memory_limit = choosing.memory_limit;
    Choice choice = choose(mask, place.ranks, prices, grid ? &*grid : nullptr, partition, choosing.looked);
    priced = std::move(choice.priced);
    grid = choice.grid;
    partition = choice.partition;
    reason = choice.reason;
  }
  return {.shape = shape,
          .schedule = make_schedule(*grid, partition, mask, weights),
          .strategy = std::string(strategy_of(*grid)),
          .reason = reason,
          .place = place,
          .weights = weights,
          .by_auto = by_auto,
          .priced = std::move(priced)};
}

Estimate estimate_of(const Job& job, const Schedule& schedule, const Prices& prices) {
  const auto known = std::ranges::find(job.priced, schedule.grid, &std::pair<Grid, Estimate>::first);
  return known != job.priced.end() ? known->second : estimate(schedule, prices);
}

Prices prices_of(const Job& job, bool backward) {
  Prices prices = prices_of(job.shape, backward);
  prices.weights = job.weights;
  return prices;
}

Prices prices_of(const Job& job, const Context& context, const Hardware& hardware, bool backward) {
  const LinkClass inside = context.under_mpi() ? LinkClass::shared : LinkClass::process;
  return priced(prices_of(job, backward), job.shape.type, hardware, job.place.ranks_per_node, inside);
}

Index memory_of(const Job& job, bool backward) {
  const Prices prices = prices_of(job, backward);
  return footprint(job.schedule, estimate(job.schedule, prices).buffer_rows, prices).total();
}

void check_memory(const Job& job, bool backward, Index extra_bytes) {
  const Index available = available_memory();
  if (available == 0) return;
  const Index most = memory_of(job, backward) + extra_bytes;
  const int neighbours = std::min(job.place.ranks, job.place.ranks_per_node);
  const double needed = static_cast<double>(most) * neighbours;
  if (needed <= static_cast<double>(available)) return;
  const Index tokens = job.schedule.mask.queries();
  const auto fitting = static_cast<Index>(static_cast<double>(tokens) * static_cast<double>(available) / needed);
  throw Error(Failure::fit,
              sentence("it does not fit: ", neighbours, " rank", neighbours == 1 ? "" : "s", " of this node need ",
                       bytes_text(needed), ", and ", bytes_text(static_cast<double>(available)), " are free; about ",
                       grouped(fitting), " of ", grouped(tokens), " tokens would fit"));
}

std::string describe(const Job& job, const Context& context) {
  return sentence(job.strategy, " ", to_text(job.schedule.grid), ", ", job.schedule.queries.name(), ", ",
                  job.place.ranks, job.place.ranks == 1 ? " rank x " : " ranks x ", job.place.threads,
                  job.place.threads == 1 ? " thread, " : " threads, ", context.transport());
}

}  // namespace annulus::app

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/backends.hpp"
#include "app/commands/commands.hpp"
#include "app/help.hpp"
#include "app/ini.hpp"
#include "app/job.hpp"
#include "app/outputs.hpp"
#include "app/plan_page.hpp"
#include "app/plan_subject.hpp"
#include "app/predicted_timeline.hpp"
#include "app/progress.hpp"
#include "app/rank_table.hpp"
#include "app/strategy_table.hpp"
#include "app/tensor_places.hpp"
#include "app/text_draft.hpp"
#include "app/traces.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

// One, or those that --ranks lists.
std::vector<int> numbers_of_ranks(const Settings& settings, const Context& context) {
  if (!settings.has("ranks")) return {context.under_mpi() ? context.ranks(0) : 4};
  return ranks_listed(settings.name_of("ranks"), settings.list("ranks"));
}

Placement place_of(const Settings& settings, int ranks, const std::optional<Hardware>& hardware) {
  Placement place{ranks, 1, 1};
  place.ranks_per_node = settings.has("ranks-per-node") ? narrow(settings.count("ranks-per-node", 1))
                         : hardware                     ? std::min(place.ranks, hardware->ranks_per_node)
                                                        : place.ranks;
  return place;
}

// What was asked for, whatever the ranks.
json request_of(const Settings& settings, const AttentionShape& s, const Mask& mask,
                const std::optional<Hardware>& hardware) {
  return {{"version", ANNULUS_VERSION},
          {"tokens", mask.queries()},
          {"keys", mask.keys()},
          {"query_heads", s.query_heads},
          {"kv_heads", s.kv_heads},
          {"channels", s.channels},
          {"value_channels", s.value_channels},
          {"dtype", name_of(s.type)},
          {"softmax_scale", s.softmax_scale},
          {"mask", mask.name()},
          {"pass", settings.text("pass")},
          {"prices", hardware ? hardware->name : "nominal"}};
}

// The same with every default resolved.
json request_of(const Settings& settings, const Job& job, const std::optional<Hardware>& hardware) {
  json request = request_of(settings, job.shape, job.schedule.mask, hardware);
  request.update({{"ranks", job.place.ranks},
                  {"ranks_per_node", std::min(job.place.ranks, job.place.ranks_per_node)},
                  {"strategy", job.strategy},
                  {"grid", to_text(job.schedule.grid)},
                  {"partition", job.schedule.queries.name()},
                  {"reason", job.reason}});
  if (!job.weights.empty()) request["weights"] = job.weights;
  return request;
}

std::string shape_text(const json& r) {
  const auto count = [&](const char* name) { return r[name].get<Index>(); };
  const auto text = [&](const char* name) { return r[name].get<std::string>(); };
  return sentence("annulus plan: ", grouped(count("tokens")), " queries x ", grouped(count("keys")), " keys, ",
                  count("query_heads"), ":", count("kv_heads"), " heads, ", count("channels"), ":",
                  count("value_channels"), " channels, ", text("dtype"), ", mask ", text("mask"), ", ",
                  text("pass") == "backward" ? "forward and backward" : "forward");
}

void print_request(const json& r) {
  const auto text = [&](const char* name) { return r[name].get<std::string>(); };
  const auto ranks = r["ranks"].get<Index>();
  std::printf("%s\n  %lld %s: %s, grid %s, partition %s\n  %s\n", shape_text(r).c_str(), static_cast<long long>(ranks),
              ranks == 1 ? "rank" : "ranks", text("strategy").c_str(), text("grid").c_str(), text("partition").c_str(),
              wrapped_line(text("reason"), 2).c_str());
}

std::string prices_text(const std::optional<Hardware>& hardware) {
  return hardware ? "predicted for " + hardware->name
                  : "at nominal prices: a few CPU cores, one kind of link (--hardware FILE predicts)";
}

// The limit that is asked for, or what a rank of the profile has.
std::optional<MemoryLimit> memory_limit(const Settings& settings, const std::optional<Hardware>& hardware) {
  if (settings.has("memory-limit"))
    return MemoryLimit{settings.bytes("memory-limit"), settings.name_of("memory-limit")};
  if (hardware && hardware->memory_bytes)
    return MemoryLimit{static_cast<Index>(*hardware->memory_bytes), "memory-bytes of " + hardware->name};
  return std::nullopt;
}

// What auto may spend of a limit: traces need the rest.
Index left_for_attention(Index limit, const TraceChoice& traces, const PlanSubject& subject, int ranks) {
  return std::max<Index>(1, limit - trace_bytes(traces, subject.shape, subject.mask, ranks));
}

// What plan alone says of each number of ranks, in one table.
void plan_by_ranks(const Settings& settings, const std::vector<int>& numbers, const PlanSubject& subject,
                   const std::optional<Hardware>& hardware, json& out) {
  for (const char* name : {"grid", "weights", "timeline", "explain"})
    require(!settings.has(name) || settings.text(name) == "false", settings.name_of(name),
            " is about one number of ranks, and ", settings.name_of("ranks"), " lists ", numbers.size());
  const bool backward = settings.text("pass") == "backward";
  const std::optional<MemoryLimit> limit = memory_limit(settings, hardware);
  const TraceChoice traces = trace_choice(settings);
  Progress progress(settings.text("progress"), true, "numbers of ranks priced", static_cast<Index>(numbers.size()));
  progress.begin();
  std::vector<RankRow> rows;
  for (const int ranks : numbers) {
    const Placement place = place_of(settings, ranks, hardware);
    RankRow& row = rows.emplace_back(RankRow{place.ranks, place.ranks_per_node});
    try {
      const Job job = make_job(settings, place, subject.shape, subject.mask, backward,
                               {.memory_limit = limit ? left_for_attention(limit->bytes, traces, subject, ranks) : far});
      const Prices prices = prices_of(settings, place, job.shape, backward);
      row.estimate = estimate_of(job, job.schedule, prices);
      row.memory = footprint(job.schedule, row.estimate.buffer_rows, prices).total() + trace_bytes(traces, job);
      row.strategy = job.strategy;
      row.grid = to_text(job.schedule.grid);
      row.partition = job.schedule.queries.name();
      row.reason = job.reason;
    } catch (const Error& e) {
      if (e.failure() != Failure::usage) throw;
      row.refusal = e.what();
    }
    progress.add(1);
  }
  progress.finish();
  if (std::ranges::none_of(rows, &RankRow::legal)) throw Error(Failure::usage, rows.back().refusal);
  out = request_of(settings, subject.shape, subject.mask, hardware);
  std::printf("%s  %s\n", wrapped_line(shape_text(out), 0).c_str(), wrapped_line(prices_text(hardware), 2).c_str());
  print_rank_table(rows, limit, subject.mask.queries(), out);
}

// Before anything is printed.
void check_limit(const std::optional<MemoryLimit>& limit, const Planned& plan) {
  const Index needed = footprint(plan.job.schedule, plan.estimate.buffer_rows, plan.prices).total() + plan.trace_bytes;
  if (!limit || needed <= limit->bytes) return;
  throw Error(Failure::fit,
              sentence(plan.job.strategy, " ", to_text(plan.job.schedule.grid), " on ", plan.job.place.ranks,
                       plan.job.place.ranks == 1 ? " rank" : " ranks", " needs ", grouped(needed), " bytes per rank (",
                       bytes_text(static_cast<double>(needed)),
                       ") for inputs, results, visiting blocks and what travels by heads",
                       plan.trace_bytes > 0 ? " and traces" : "", ", and ", limit->by, " is ", grouped(limit->bytes), " (",
                       bytes_text(static_cast<double>(limit->bytes)), ")",
                       plan.job.by_auto ? ": no strategy needs less, more ranks do" : ""));
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  check_outputs(settings, settings.positional());
  TextDraft twin(settings.name_of("json"), settings.text("json"));
  if (settings.text("kernel") != "auto") kernel_place(settings.text("kernel"));
  PredictedTimeline timeline(settings);
  const bool backward = settings.text("pass") == "backward";
  const std::optional<Hardware> hardware = hardware_of(settings);
  PlanSubject subject = plan_subject(settings, backward, hardware);
  const std::vector<int> numbers = numbers_of_ranks(settings, context);
  if (numbers.size() > 1) {
    json out;
    plan_by_ranks(settings, numbers, subject, hardware, out);
    twin.commit(out.dump(2) + "\n");
    return 0;
  }
  const Placement place = place_of(settings, numbers.front(), hardware);
  std::optional<Progress> progress;
  const auto looked = [&](Index of) {
    if (!progress)
      progress.emplace(settings.text("progress"), true, "candidates priced",
                       of + static_cast<Index>(strategies().size()));
    progress->begin();
    progress->add(1);
  };
  const TraceChoice traces = trace_choice(settings);
  const std::optional<MemoryLimit> limit = memory_limit(settings, hardware);
  const Index most = limit ? left_for_attention(limit->bytes, traces, subject, place.ranks) : far;
  const Job job = make_job(settings, place, subject.shape, subject.mask, backward, {looked, most});
  const Prices prices = prices_of(settings, place, job.shape, backward);
  const Estimate e = timeline.estimate(job, prices);
  if (traces.any()) subject.files.write.emplace_back("trace", trace_file_bytes(traces, job));
  const Planned plan{job, prices, e, subject.files, trace_bytes(traces, job)};
  check_limit(limit, plan);
  const std::vector<StrategyLine> lines = price_strategies(plan, [&] { looked(0); });
  progress->finish();
  json out = request_of(settings, job, hardware);
  print_request(out);
  print_schedule(plan, out);
  print_costs(plan, out);
  std::printf("\n  strategies for this request on the partition %s, %s, ", job.schedule.queries.name().c_str(),
              backward ? "forward and backward" : "forward");
  std::printf("%s\n", prices_text(hardware).c_str());
  print_strategies(lines, plan, out);
  if (settings.flag("explain")) print_legality(job, out);
  timeline.write(job, out);
  twin.commit(out.dump(2) + "\n");
  return 0;
}

// What says how run, attend and bench do it, and changes nothing here.
std::vector<Option> unused_options() {
  std::vector<Option> options = machine_options();
  for (Option& option : options)
    option.group = "Not used by a plan (accepted, so that a --config of attend, run or bench serves)";
  return options;
}

// As other commands have them, but for --ranks, which may list several.
std::vector<Option> plan_options_of_several_ranks() {
  std::vector<Option> options = plan_options("(mpirun's, else 4)");
  Option& ranks = *std::ranges::find(options, "ranks", &Option::name);
  ranks.value = "LIST";
  ranks.help = "ranks; several, 8,64,512, are planned one by one and compared in one table";
  ranks.check = number_list();
  options.push_back(
      {.name = "memory-limit",
       .value = "SIZE",
       .group = ranks.group,
       .help = "bytes a rank may take, 80GiB or 141GB: auto keeps to it, and a plan that does not fit ends with 4;\n"
               "of several numbers of ranks the table tells (default: memory-bytes of --hardware, where it has them)",
       .check = byte_count(1)});
  return options;
}

// A line of a configuration file that was written for attend, run or bench: what a plan is made of in its own words; false
// for what it is not made of.
bool adopt(IniLine& line) {
  if (line.key == "backward") {
    line.key = "pass";
    if (line.value == "true") line.value = "backward";
    if (line.value == "false") line.value = "forward";
    return true;
  }
  if (line.key == "tokens") {
    line.value = line.value.substr(0, line.value.find(','));  // bench: the first of its lengths
    static constexpr std::string_view kinds[] = {"auto", "words", "bytes", "bases"};
    return std::ranges::find(kinds, line.value) == std::end(kinds);  // run: what a token is
  }
  const auto knows = [&](const Command& command) {
    return std::ranges::find(command.options, line.key, &Option::name) != command.options.end();
  };
  const auto table = commands();
  return knows(*std::ranges::find(table, "plan", &Command::name)) || std::ranges::none_of(table, knows);
}

}  // namespace

Command plan_command() {
  return {.name = "plan",
          .summary = "what would happen: who computes what when, bytes, memory; starts nothing",
          .arguments = {"[INPUT.h5]", 0, 1},
          .options =
              joined({shape_options(),
                      {{.name = "document-tokens",
                        .value = "N",
                        .group = "Shape",
                        .help = "equal documents of so many tokens, for the mask term documents",
                        .check = whole_number(1)},
                       {.name = "pass",
                        .value = "forward|backward",
                        .fallback = "forward",
                        .group = "Attention",
                        .help = "forward: that pass alone; backward: forward and backward, one after the other"},
                       softmax_scale_option(),
                       mask_option("causal"),
                       dtype_option("(as the input; else f32, or the first of f32, bf16, f16 that --hardware knows)")},
                      tensor_options(),
                      plan_options_of_several_ranks(),
                      trace_options("none"),
                      {{.name = "ranks-per-node",
                        .value = "N",
                        .fallback = "(the profile's, else all)",
                        .group = "Distribution",
                        .help = "ranks that share a node",
                        .check = whole_number(1)},
                       {.name = "explain",
                        .group = "Output",
                        .help = "also what each strategy does in each pass, or why it is refused"},
                       {.name = "json", .value = "FILE", .group = "Output", .help = "the same for machines"},
                       {.name = "timeline",
                        .value = "FILE",
                        .group = "Output",
                        .help = "Chrome/Perfetto JSON of what each rank would do when; of at most 64 ranks"},
                       progress_option()},
                      unused_options()}),
          .examples = {"annulus plan --tokens 1M --ranks 8 --mask causal",
                       "annulus plan --tokens 64Ki --ranks 64 --mask window:4095,0",
                       "annulus plan --tokens 1M --ranks 8,64,512 --memory-limit 80GiB",
                       "annulus plan qkv.h5 --ranks 4 --strategy ulysses --json plan.json",
                       "annulus plan --ranks 16 --strategy ring --timeline predicted.json"},
          .run = run,
          .adopt = adopt};
}

}  // namespace annulus::app

#include <algorithm>
#include <cmath>
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
#include "app/predicted_timeline.hpp"
#include "app/progress.hpp"
#include "app/strategy_table.hpp"
#include "app/tensors.hpp"
#include "app/text_draft.hpp"
#include "app/traces.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

constexpr int most_ranks = 65536;  // pricing looks at ranks^2 pairs of shards
constexpr Index most_documents = Index{1} << 20;

struct Subject {
  AttentionShape shape;
  Mask mask;
  FileBytes files;
};

// What `attend` reads, where that is a file: its datasets as they are.
Subject subject_in(const std::string& path, const Settings& s, bool backward) {
  for (const char* name :
       {"tokens", "keys", "query-heads", "kv-heads", "channels", "value-channels", "document-tokens"})
    require(!s.given(name), s.name_of(name), " must not be given beside an input: the shape is that of ", path);
  const TensorInput input = open_tensors(path, s, backward);
  FileBytes files;
  for (const char* name : {"q", "k", "v", "dout", "documents"}) {
    if (name == std::string_view("dout") && !backward) continue;
    if (!input.file.has(name)) continue;
    const annulus::Shape shape = input.file.shape(name);
    files.read.emplace_back(name, shape.elements() * bytes_of(shape.element));
  }
  return {input.shape, input.mask, std::move(files)};
}

// Made up from options.
Subject subject_of(const Settings& s, bool backward, const std::optional<Hardware>& hardware) {
  Extent extent{s.count("tokens"), s.has("keys") ? s.count("keys") : s.count("tokens"), {}};
  require(extent.queries <= far / 4 && extent.keys <= far / 4, "--tokens and --keys must be below 2^58");
  const bool documents = ("+" + s.text("mask") + "+").find("+documents+") != std::string::npos;
  require(documents || !s.has("document-tokens"), s.name_of("document-tokens"),
          " needs the mask term documents: the mask is ", s.text("mask"));
  require(!documents || s.has("document-tokens"), s.name_of("mask"),
          ": the term documents needs --document-tokens N, or an input with a dataset documents");
  if (documents) {
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
  shape.softmax_scale =
      s.has("softmax-scale") ? s.number("softmax-scale") : 1 / std::sqrt(static_cast<double>(shape.channels));
  const Index row = bytes_of(shape.type) * shape.query_heads, key_row = bytes_of(shape.type) * shape.kv_heads;
  FileBytes files;
  files.read = {{"q", extent.queries * row * shape.channels},
                {"k", extent.keys * key_row * shape.channels},
                {"v", extent.keys * key_row * shape.value_channels}};
  if (backward) files.read.emplace_back("dout", extent.queries * row * shape.value_channels);
  if (documents) files.read.emplace_back("documents", 8 * static_cast<Index>(extent.documents.size()));
  return {shape, Mask::parse(s.text("mask"), extent), std::move(files)};
}

// What `attend` writes.
void add_results(const AttentionShape& s, const Mask& mask, bool backward, FileBytes& files) {
  const Index each = bytes_of(s.type), queries = mask.queries() * s.query_heads, keys = mask.keys() * s.kv_heads;
  files.write = {{"out", queries * s.value_channels * each}, {"lse", queries * 4}};
  if (!backward) return;
  files.write.emplace_back("dq", queries * s.channels * each);
  files.write.emplace_back("dk", keys * s.channels * each);
  files.write.emplace_back("dv", keys * s.value_channels * each);
}

Placement place_of(const Settings& settings, const Context& context, const std::optional<Hardware>& hardware) {
  Placement place{1, 1, 1};
  place.ranks = narrow(settings.has("ranks") ? settings.count("ranks", 1) : context.under_mpi() ? context.ranks(0) : 4);
  require(place.ranks <= most_ranks, settings.name_of("ranks"), " must be at most ", most_ranks,
          " in this version: it is ", place.ranks);
  place.ranks_per_node = settings.has("ranks-per-node") ? narrow(settings.count("ranks-per-node", 1))
                         : hardware                     ? std::min(place.ranks, hardware->ranks_per_node)
                                                        : place.ranks;
  return place;
}

// What was asked for, every default resolved.
json request_of(const Settings& settings, const Job& job, const std::optional<Hardware>& hardware) {
  const AttentionShape& s = job.shape;
  json request{{"version", ANNULUS_VERSION},
               {"tokens", job.schedule.mask.queries()},
               {"keys", job.schedule.mask.keys()},
               {"query_heads", s.query_heads},
               {"kv_heads", s.kv_heads},
               {"channels", s.channels},
               {"value_channels", s.value_channels},
               {"dtype", name_of(s.type)},
               {"softmax_scale", s.softmax_scale},
               {"mask", job.schedule.mask.name()},
               {"pass", settings.text("pass")},
               {"ranks", job.place.ranks},
               {"ranks_per_node", std::min(job.place.ranks, job.place.ranks_per_node)},
               {"strategy", job.strategy},
               {"grid", to_text(job.schedule.grid)},
               {"partition", job.schedule.queries.name()},
               {"reason", job.reason},
               {"prices", hardware ? hardware->name : "nominal"}};
  if (!job.weights.empty()) request["weights"] = job.weights;
  return request;
}

void print_request(const json& r) {
  const auto count = [&](const char* name) { return r[name].get<Index>(); };
  const auto text = [&](const char* name) { return r[name].get<std::string>(); };
  std::printf("%s\n", sentence("annulus plan: ", grouped(count("tokens")), " queries x ", grouped(count("keys")),
                               " keys, ", count("query_heads"), ":", count("kv_heads"), " heads, ", count("channels"),
                               ":", count("value_channels"), " channels, ", text("dtype"), ", mask ", text("mask"),
                               ", ", text("pass") == "backward" ? "forward and backward" : "forward")
                          .c_str());
  std::printf("  %lld %s: %s, grid %s, partition %s\n  %s\n", static_cast<long long>(count("ranks")),
              count("ranks") == 1 ? "rank" : "ranks", text("strategy").c_str(), text("grid").c_str(),
              text("partition").c_str(), wrapped_line(text("reason"), 2).c_str());
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  check_outputs(settings, settings.positional());
  TextDraft twin(settings.name_of("json"), settings.text("json"));
  if (settings.text("kernel") != "auto") kernel_place(settings.text("kernel"));
  PredictedTimeline timeline(settings);
  const bool backward = settings.text("pass") == "backward";
  const std::optional<Hardware> hardware = hardware_of(settings);
  Subject subject = settings.positional().empty() ? subject_of(settings, backward, hardware)
                                                  : subject_in(settings.positional().front(), settings, backward);
  add_results(subject.shape, subject.mask, backward, subject.files);
  const Placement place = place_of(settings, context, hardware);
  std::optional<Progress> progress;
  const auto looked = [&](Index of) {
    if (!progress)
      progress.emplace(settings.text("progress"), true, "candidates priced",
                       of + static_cast<Index>(strategies().size()));
    progress->begin();
    progress->add(1);
  };
  const Job job = make_job(settings, place, subject.shape, subject.mask, backward, looked);
  const Prices prices = prices_of(settings, place, job.shape, backward);
  const Estimate e = timeline.estimate(job, prices);
  const TraceChoice traces = trace_choice(settings);
  if (traces.any()) subject.files.write.emplace_back("trace", trace_file_bytes(traces, job));
  const Planned plan{job, prices, e, subject.files, trace_bytes(traces, job)};
  const std::vector<StrategyLine> lines = price_strategies(plan, [&] { looked(0); });
  progress->finish();
  json out = request_of(settings, job, hardware);
  print_request(out);
  print_schedule(plan, out);
  print_costs(plan, out);
  std::printf("\n  strategies for this request on the partition %s, %s, ", job.schedule.queries.name().c_str(),
              backward ? "forward and backward" : "forward");
  if (hardware) {
    std::printf("predicted for %s\n", hardware->name.c_str());
  } else {
    std::printf("at nominal prices: a few CPU cores, one kind of link (--hardware FILE predicts)\n");
  }
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
    return line.value != "words" && line.value != "bytes";    // run: what a token is
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
                      plan_options("(mpirun's, else 4)"),
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
                       "annulus plan qkv.h5 --ranks 4 --strategy ulysses --json plan.json",
                       "annulus plan --ranks 16 --strategy ring --timeline predicted.json"},
          .run = run,
          .adopt = adopt};
}

}  // namespace annulus::app

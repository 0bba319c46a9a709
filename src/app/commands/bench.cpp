#include <malloc.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/bench.hpp"
#include "app/commands/commands.hpp"
#include "app/stop.hpp"

namespace annulus::app {
namespace {

struct Benchmark {
  std::string_view name, what;
  int (*run)(const Settings&, Context&);
  std::string_view tokens;    ///< where --tokens is not given
  std::string_view unused;    ///< options that mean nothing to it, a blank before and after each
  bool on_gpu = false;        ///< it knows how
  bool sweeps = false;        ///< masks, types and passes that are not given
  bool counts_ranks = false;  ///< measures on several numbers of ranks
};
constexpr std::string_view no_profile = " output ", no_profile_or_keys = " keys output ";
constexpr std::string_view one_rank = " keys strategy grid partition weights hardware ranks timeline output ",
                           one_rank_unchecked = " rows strategy grid partition weights hardware ranks timeline output ";
constexpr std::array<Benchmark, 8> benchmarks{{
    {"kernel", "one rank's kernels beside the processor's own peak", bench_kernel, "1Ki,4Ki", one_rank_unchecked, false,
     true},
    {"blocks", "one rank's kernel with keys in ever smaller blocks, as more ranks would bring them", bench_blocks,
     "4Ki", one_rank},
    {"strategies", "every strategy that is legal for the request, side by side", bench_strategies, "4Ki", no_profile,
     true},
    {"strong", "the same job on 1, 2, 4 ... ranks", bench_strong, "4Ki", no_profile, true, false, true},
    {"weak", "the same tokens per rank on 1, 2, 4 ... ranks", bench_weak, "2Ki", no_profile_or_keys, true, false, true},
    {"exchange", "messages between neighbours alone, 8 bytes to 16 MiB", bench_exchange, "",
     " tokens keys query-heads kv-heads channels value-channels document-tokens mask dtype pass softmax-scale trace "
     "warmup "
     "rows "
     "strategy grid partition weights hardware kernel output "},
    {"overlap", "a pass beside its computation alone and its exchange alone", bench_overlap, "1Ki,2Ki,4Ki,8Ki",
     no_profile_or_keys, true},
    {"calibrate", "this machine, written as a hardware profile", bench_calibrate, "64,256,1Ki,4Ki",
     " keys strategy grid partition weights hardware rows warmup timeline trace ", false, true},
}};

std::string list_of_benchmarks() {
  std::string text;
  for (const Benchmark& benchmark : benchmarks)
    text += sentence("  ", benchmark.name, std::string(12 - benchmark.name.size(), ' '), benchmark.what, "\n");
  return text;
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (std::string_view left = text;; left.remove_prefix(left.find(',') + 1)) {
    words.emplace_back(left.substr(0, left.find(',')));
    if (left.find(',') == left.npos) return words;
  }
}

Check counts() {
  return [](std::string_view text) {
    for (const std::string& word : words_of(std::string(text))) parse_count(word, 1);
  };
}

Option with_fallback(Option option, std::string fallback) {
  option.fallback = std::move(fallback);
  return option;
}

std::vector<Option> bench_shape_options() {
  std::vector<Option> options = shape_options();
  for (Option& option : options) {
    if (option.name == "tokens") {
      option = {.name = "tokens",
                .value = "N,N,...",
                .fallback = "(kernel: 1Ki,4Ki; blocks, strategies, strong: 4Ki; weak: 2Ki; overlap: 1Ki to 8Ki)",
                .group = option.group,
                .help = "queries, and keys if --keys does not say; of each rank in bench weak",
                .check = counts()};
    } else if (option.name == "query-heads") {
      option = with_fallback(option, "4");
    }
  }
  return options;
}

std::vector<Option> measuring_options() {
  const std::string group = "Measuring";
  return {
      {.name = "warmup",
       .value = "N",
       .fallback = "1",
       .group = group,
       .help = "passes before the clock starts",
       .check = whole_number(0)},
      {.name = "repeats",
       .value = "N",
       .fallback = "5",
       .group = group,
       .help = "measured passes",
       .check = whole_number(1)},
      {.name = "rows",
       .value = "N",
       .fallback = "8",
       .group = group,
       .help = "sampled rows recomputed in float64; 0: none",
       .check = whole_number(0)},
  };
}

std::vector<Option> bench_output_options() {
  const std::string group = "Output";
  return {
      {.name = "csv", .value = "FILE", .group = group, .help = "the table"},
      {.name = "json",
       .value = "FILE",
       .group = group,
       .help = "the table, all repetitions, arguments and environment"},
      {.name = "output",
       .value = "FILE",
       .group = group,
       .help = "profile that calibrate writes (default: it is printed)"},
      {.name = "overwrite", .group = group, .help = "replace an existing profile (tables are always replaced)"},
      progress_option(),
      {.name = "timeline", .value = "FILE", .group = group, .help = "Chrome/Perfetto JSON of the last case"},
  };
}

// What cannot be meant. A --config file may hold options for other benchmarks and commands.
void check_options(const Settings& settings, const Context& context, const Benchmark& benchmark) {
  for (const Setting& setting : settings.all())
    require(setting.origin != "command line" ||
                benchmark.unused.find(" " + setting.option.name + " ") == benchmark.unused.npos,
            settings.name_of(setting.option.name), " means nothing to bench ", benchmark.name, ", which measures ",
            benchmark.what);
  context.ranks(0, settings.text("transport"));
  const bool documents = names_term(settings.text("mask"), "documents"), lengths = settings.has("document-tokens");
  require(!documents || lengths, settings.name_of("mask"),
          ": the term documents needs --document-tokens N, the tokens of a document");
  require(documents || !lengths || settings.name_of("document-tokens") != "--document-tokens",
          "--document-tokens is for masks with the term documents, for example --mask causal+documents: the mask is ",
          settings.has("mask") ? settings.text("mask") : "causal");
}

// The options with what stands for those that are not given, as far as it is one value for all cases.
Settings resolved(const Settings& given, const Context& context, const Benchmark& benchmark) {
  Settings settings = given;
  const auto fill = [&](const char* option, const std::string& text) {
    if (!settings.has(option)) settings = settings.with(option, text);
  };
  const bool alone = benchmark.unused.find(" ranks ") != benchmark.unused.npos;
  const int ranks = context.ranks(!alone && given.has("ranks") ? given.count("ranks", 1) : 0, given.text("transport"));
  if (!alone) fill("ranks", std::to_string(ranks));
  if (benchmark.tokens.empty()) return settings;
  if (benchmark.unused.find(" trace ") != benchmark.unused.npos) settings = settings.with("trace", "none");
  fill("tokens", std::string(benchmark.tokens));
  fill("kv-heads", settings.text("query-heads"));
  fill("value-channels", settings.text("channels"));
  fill("softmax-scale", nlohmann::json(1 / std::sqrt(static_cast<double>(settings.count("channels", 1)))).dump());
  if (!benchmark.counts_ranks) fill("threads", std::to_string(threads_of(settings, context, alone ? 1 : ranks)));
  if (benchmark.sweeps) return settings;
  fill("mask", "causal");
  fill("dtype", "f32");
  fill("pass", "forward");
  return settings;
}

int run(const Settings& settings, Context& context) {
  const std::string& name = settings.positional().front();
  std::string names;
  catch_stop_signals();
  mallopt(M_ARENA_MAX, 1);  // one heap for ranks that are threads: what a case frees can be given back before the next
  for (const Benchmark& benchmark : benchmarks) {
    if (benchmark.name == name) {
      require(benchmark.on_gpu || (settings.text("device") != "cuda" && settings.text("transport") != "nccl"), "bench ",
              name, " measures the CPU (launch/gpu-check measures the kernels of a GPU)");
      check_options(settings, context, benchmark);
      const Settings used = resolved(settings, context, benchmark);
      return benchmark.run(benchmark.on_gpu ? used : used.with("device", "cpu"), context);
    }
    names += sentence(names.empty() ? "" : ", ", benchmark.name);
  }
  throw Error(Failure::usage, sentence("'", name, "' is not a benchmark: they are ", names));
}

}  // namespace

std::vector<Index> counts_of(const Settings& settings, const std::string& option) {
  std::vector<Index> numbers;
  for (const std::string& word : words_of(settings.text(option))) numbers.push_back(parse_count(word, 1));
  return numbers;
}

Case case_of(const Settings& s, Index tokens) {
  Case c;
  c.shape = {s.count("query-heads", 1),
             s.count("kv-heads", 1),
             s.count("channels", 1),
             s.count("value-channels", 1),
             parse_dtype(s.has("dtype") ? s.text("dtype") : "f32"),
             s.number("softmax-scale")};
  check(c.shape);
  c.tokens = tokens;
  c.keys = s.has("keys") ? s.count("keys", 1) : tokens;
  c.mask = s.has("mask") ? s.text("mask") : "causal";
  if (names_term(s.text("mask"), "documents")) c.documents = equal_documents(tokens, s.count("document-tokens", 1));
  c.strategy = s.text("strategy");
  c.backward = s.has("pass") && s.text("pass") == "backward";
  c.trace = s.text("trace");
  c.traces = trace_choice(s);
  return c;
}

Command bench_command() {
  return {.name = "bench",
          .summary = "scaling and strategy benchmarks, kernels, links: table, CSV, JSON",
          .details = list_of_benchmarks(),
          .arguments = {"BENCHMARK", 1, 1},
          .options = joined({bench_shape_options(),
                             {{.name = "document-tokens",
                               .value = "N",
                               .group = "Shape",
                               .help = "equal documents of so many tokens, for the mask term documents",
                               .check = whole_number(1)},
                              mask_option("(causal; kernel: full and causal)"),
                              dtype_option("(f32; kernel: all)"),
                              {.name = "pass",
                               .value = "forward|backward",
                               .fallback = "(forward; kernel: both)",
                               .group = "Attention",
                               .help = "which pass to measure"},
                              softmax_scale_option()},
                             trace_options("none"),
                             measuring_options(),
                             distribution_options(),
                             bench_output_options()}),
          .examples = {"annulus bench kernel --dtype f32 --threads 1 --json kernel.json",
                       "annulus bench blocks --tokens 16Ki --dtype bf16 --pass backward",
                       "mpirun -n 4 annulus bench strategies --tokens 16Ki --query-heads 8 --mask causal",
                       "annulus bench strong --ranks 4 --threads 1 --tokens 8Ki --csv strong.csv",
                       "mpirun -n 2 annulus bench calibrate --output here.ini"},
          .run = run};
}

}  // namespace annulus::app

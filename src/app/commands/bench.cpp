#include <array>
#include <cmath>

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
  bool on_gpu = false;  ///< it knows how
};
constexpr std::array<Benchmark, 7> benchmarks{{
    {"kernel", "one rank's kernels beside the processor's own peak", bench_kernel},
    {"strategies", "every strategy that is legal for the request, side by side", bench_strategies, true},
    {"strong", "the same job on 1, 2, 4 ... ranks", bench_strong, true},
    {"weak", "the same tokens per rank on 1, 2, 4 ... ranks", bench_weak, true},
    {"exchange", "messages between neighbours alone, 8 bytes to 16 MiB", bench_exchange},
    {"overlap", "a pass beside its computation alone and its exchange alone", bench_overlap, true},
    {"calibrate", "measures this machine and writes it as a hardware profile", bench_calibrate},
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
                .fallback = "(1Ki,4Ki; weak: 2Ki)",
                .group = option.group,
                .help = "queries and keys; of each rank in bench weak",
                .check = counts()};
    } else if (option.name == "query-heads") {
      option = with_fallback(option, "4");
    }
  }
  std::erase_if(options, [](const Option& option) { return option.name == "keys"; });
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
      {.name = "overwrite", .group = group, .help = "replace an existing profile"},
      {.name = "timeline", .value = "FILE", .group = group, .help = "Chrome/Perfetto JSON of the last case"},
  };
}

int run(const Settings& settings, Context& context) {
  const std::string& name = settings.positional().front();
  std::string names;
  catch_stop_signals();
  for (const Benchmark& benchmark : benchmarks) {
    if (benchmark.name == name) {
      if (benchmark.on_gpu) return benchmark.run(settings, context);
      require(settings.text("device") != "cuda" && settings.text("transport") != "nccl", "bench ", name,
              " measures the CPU (launch/gpu-check measures the kernels of a GPU)");
      return benchmark.run(settings.with("device", "cpu"), context);
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
             s.has("kv-heads") ? s.count("kv-heads", 1) : s.count("query-heads", 1),
             s.count("channels", 1),
             s.has("value-channels") ? s.count("value-channels", 1) : s.count("channels", 1),
             parse_dtype(s.has("dtype") ? s.text("dtype") : "f32"),
             0};
  c.shape.softmax_scale = 1 / std::sqrt(static_cast<double>(c.shape.channels));
  check(c.shape);
  c.tokens = c.keys = tokens;
  c.mask = s.has("mask") ? s.text("mask") : "causal";
  if (s.has("document-tokens")) c.documents = equal_documents(tokens, s.count("document-tokens", 1));
  c.strategy = s.text("strategy");
  c.backward = s.has("pass") && s.text("pass") == "backward";
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
                               .help = "which pass to measure"}},
                             measuring_options(),
                             distribution_options(),
                             bench_output_options()}),
          .examples = {"annulus bench kernel --dtype f32 --threads 1 --json kernel.json",
                       "mpirun -n 4 annulus bench strategies --tokens 16Ki --query-heads 8 --mask causal",
                       "annulus bench strong --ranks 4 --threads 1 --tokens 8Ki --csv strong.csv",
                       "mpirun -n 2 annulus bench calibrate --output here.ini"},
          .run = run};
}

}  // namespace annulus::app

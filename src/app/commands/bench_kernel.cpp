#include <algorithm>
#include <cmath>

#include "annulus/base/error.hpp"
#include "app/backends.hpp"
#include "app/bench.hpp"
#include "app/processor_peak.hpp"

namespace annulus::app {
namespace {

std::vector<std::string> given_or(const Settings& settings, const char* option, std::vector<std::string> all) {
  if (settings.has(option)) return {settings.text(option)};
  return all;
}

std::vector<std::string> kernel_names(const Settings& settings) {
  if (settings.text("kernel") != "all") return {settings.text("kernel")};
  std::vector<std::string> names;
  for (const KernelRow& row : kernels())
    if (row.name != "reference") names.emplace_back(row.name);
  return names;
}

Row measured(const Settings& settings, const Case& c, int threads) {
  std::vector<double> peaks;
  std::string kernel;
  const std::string& asked = settings.text("kernel");
  if (asked == "auto" || asked == "fast") {  // which one that is: it decides what the peak is
    kernel = std::string(make_kernel(asked, problem_of(c.shape, {1, 1, 1}, 0, 0), {1})->name());
  } else {
    kernel = asked;
  }
  const auto peak = [&] { peaks.push_back(processor_peak(kernel, threads)); };
  const Alone alone = run_alone(settings, c, threads, {settings.count("warmup"), settings.count("repeats", 1), peak});
  std::vector<double> fractions;
  for (std::size_t i = 0; i < alone.seconds.size(); ++i)
    fractions.push_back(2 * alone.operations / alone.seconds[i] / std::max(1.0, peaks[i] + peaks[i + 1]));
  const Samples times(alone.seconds);
  const double peak_rate = Samples(peaks).median();
  Row row;
  row["kernel"] = alone.kernel;
  row["dtype"] = name_of(c.shape.type);
  row["pass"] = c.backward ? "backward" : "forward";
  row["trace"] = c.trace;
  row["mask"] = c.mask;
  row["tokens"] = c.tokens;
  row["keys"] = c.keys;
  row["query_heads"] = c.shape.query_heads;
  row["kv_heads"] = c.shape.kv_heads;
  row["channels"] = c.shape.channels;
  row["value_channels"] = c.shape.value_channels;
  row["threads"] = threads;
  row["median_ms"] = times.median() * 1e3;
  row["min_ms"] = times.least() * 1e3;
  row["p99_ms"] = times.p99() * 1e3;
  row["max_ms"] = times.most() * 1e3;
  row["gflops"] = alone.operations / times.median() * 1e-9;
  row["peak_gflops"] = peak_rate > 0 ? Row(peak_rate * 1e-9) : Row(nullptr);
  row["fraction"] = peak_rate > 0 ? Row(Samples(fractions).median()) : Row(nullptr);
  return row;
}

}  // namespace

int bench_kernel(const Settings& settings, Context& context) {
  const int threads = threads_of(settings, context, 1);
  Report report(settings, context,
                {{"kernel", 16},
                 {"dtype", 5},
                 {"pass", 8},
                 {"mask", 8},
                 {"tokens", 7},
                 {"keys", 7},
                 {"query_heads", 7, 0, "q_heads"},
                 {"kv_heads", 8},
                 {"channels", 8},
                 {"value_channels", 0},
                 {"trace", 0},
                 {"threads", 7},
                 {"median_ms", 10, 3},
                 {"p99_ms", 10, 3},
                 {"gflops", 9, 1},
                 {"peak_gflops", 8, 1, "peak"},
                 {"fraction", 8, 3},
                 {"min_ms", 0},
                 {"max_ms", 0}});
  report.note(
      "gflops = 2 x visible pairs x query heads x (channels + value channels) / median, 2.5 times that backward "
      "(--trace: and channels more)");
  report.note(
      "peak (peak_gflops): the multiply-add loop of the same instructions and threads, before and after every repetition;");
  report.note("fraction: median over repetitions of the rate over the mean of both peaks beside it");
  const auto lengths = counts_of(settings, "tokens");
  const auto names = kernel_names(settings), types = given_or(settings, "dtype", {"f32", "bf16", "f16"}),
             passes = given_or(settings, "pass", {"forward", "backward"}),
             masks = given_or(settings, "mask", {"full", "causal"});
  for (const auto& [option, values] : {std::pair{"kernel", names}, {"dtype", types}, {"pass", passes}, {"mask", masks}})
    report.used(option, values);
  report.expect(std::ssize(names) * std::ssize(types) * std::ssize(passes) * std::ssize(masks) * std::ssize(lengths));
  const double patience = settings.number("timeout");
  const auto one = [&](const Settings& asked, Index tokens) {
    Row row;
    on_first_ranks(context, 1, patience, [&](RankTools& tools) {
      together(tools.transport, [&] { row = measured(asked, case_of(asked, tokens), threads); });
    });
    if (context.lead()) report.row(row);
  };
  for (const std::string& kernel : names)
    for (const std::string& type : types)
      for (const std::string& pass : passes)
        for (const std::string& mask : masks)
          for (Index tokens : lengths) {
            const Settings asked =
                settings.with("kernel", kernel).with("dtype", type).with("pass", pass).with("mask", mask);
            try {
              report.collect([&] { one(asked, tokens); });
            } catch (const Agreed& e) {
              if (settings.text("kernel") != "all" || e.failure() != Failure::usage) throw;
              report.refused(sentence(kernel, ", ", type, ": refused: ", e.what()));
            }
          }
  double best = 0;
  for (const Row& row : report.rows())
    if (!row["fraction"].is_null()) best = std::max(best, row["fraction"].get<double>());
  return report.finish(std::nullopt, sentence(report.rows().size(), " rows, best fraction of the peak ", best));
}

}  // namespace annulus::app

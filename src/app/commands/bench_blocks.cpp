#include <algorithm>

#include "annulus/base/error.hpp"
#include "app/bench.hpp"

namespace annulus::app {
namespace {

constexpr Index shortest_block = 256;

// All keys at once, and then half as many, and again.
std::vector<Index> block_lengths(Index tokens) {
  std::vector<Index> lengths{tokens};
  Index half = shortest_block;
  while (half < tokens) half *= 2;
  for (half /= 2; half >= shortest_block; half /= 2) lengths.push_back(half);
  return lengths;
}

}  // namespace

int bench_blocks(const Settings& settings, Context& context) {
  const auto lengths = counts_of(settings, "tokens");
  const Index samples = settings.count("rows");
  const int threads = threads_of(settings, context, 1);
  std::vector<Column> columns{{"tokens", 8},
                              {"mask", static_cast<int>(std::max<std::size_t>(6, settings.text("mask").size()))},
                              {"heads", 6},
                              {"dtype", 5},
                              {"block_tokens", 12},
                              {"blocks", 6},
                              {"median_ms", 10, 3},
                              {"p99_ms", 10, 3},
                              {"tflops", 8, 4, "TFLOP/s"},
                              {"percent_of_whole", 16, 1},
                              {"max_error", 9, -1}};
  for (const Column& column : hidden_columns()) columns.push_back(column);
  Report report(settings, context, std::move(columns));
  report.note(
      "one rank computes all its queries with one block of keys after another, as the steps of a ring bring them");
  report.note(sentence("TFLOP/s = ", settings.text("pass") == "backward" ? "2.5 x " : "",
                       "2 x visible pairs x query heads x (channels + value channels) / median; warm-ups ",
                       settings.text("warmup"), ", repetitions ", settings.text("repeats")));
  report.note(sentence("percent_of_whole: of the rate with all keys in one block; max_error: of ", samples,
                       " sampled rows against float64"));
  Index cases = 0;
  for (Index tokens : lengths) cases += std::ssize(block_lengths(tokens));
  report.expect(cases);
  double worst = 0, least_percent = 100;
  for (Index tokens : lengths) {
    const Case c = case_of(settings, tokens);
    double whole = 0;
    for (Index block : block_lengths(tokens)) {
      Alone alone;
      const AloneChoice choice{.warm_ups = settings.count("warmup"),
                               .repetitions = settings.count("repeats", 1),
                               .block_tokens = block,
                               .samples = samples};
      report.collect([&] {
        on_first_ranks(context, 1, settings.number("timeout"), [&](RankTools& tools) {
          together(tools.transport, [&] { alone = run_alone(settings, c, threads, choice); });
        });
      });
      if (!context.lead()) continue;
      const Samples times(alone.seconds);
      const double rate = alone.operations / times.median();
      if (block == tokens) whole = rate;
      worst = std::max(worst, alone.checked.over_tolerance);
      least_percent = std::min(least_percent, 100 * (rate / whole));
      Row row{{"tokens", tokens},
              {"keys", tokens},
              {"mask", c.mask},
              {"heads", sentence(c.shape.query_heads, ":", c.shape.kv_heads)},
              {"dtype", name_of(c.shape.type)},
              {"block_tokens", block},
              {"blocks", ceil_div(tokens, block)},
              {"median_ms", times.median() * 1e3},
              {"p99_ms", times.p99() * 1e3},
              {"tflops", rate * 1e-12},
              {"percent_of_whole", 100 * (rate / whole)},
              {"max_error", samples > 0 ? Row(alone.checked.error) : Row(nullptr)},
              {"pass", c.backward ? "backward" : "forward"},
              {"trace", c.trace},
              {"kernel", alone.kernel},
              {"channels", c.shape.channels},
              {"value_channels", c.shape.value_channels},
              {"threads", threads},
              {"min_ms", times.least() * 1e3},
              {"max_ms", times.most() * 1e3},
              {"repetitions_ms", Row::array()}};
      for (double s : times.seconds) row["repetitions_ms"].push_back(s * 1e3);
      report.describe(row);
      report.row(row);
    }
  }
  int code = 0;
  if (context.lead())
    code =
        report.finish(samples > 0 ? std::optional(worst <= 1) : std::nullopt,
                      sentence(report.rows().size(), " rows, the slowest at ", least_percent, " % of its whole block"));
  return shared_code(context, code, settings.number("timeout"));
}

}  // namespace annulus::app

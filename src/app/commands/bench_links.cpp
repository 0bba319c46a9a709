#include <algorithm>

#include "annulus/base/error.hpp"
#include "app/bench.hpp"
#include "app/link_times.hpp"
#include "app/stop.hpp"
#include "app/timeline_file.hpp"

namespace annulus::app {
namespace {

constexpr Index least_bytes = 8, most_bytes = Index{16} << 20;

int ranks_of(const Settings& settings, Context& context) {
  return context.ranks(settings.has("ranks") ? settings.count("ranks", 1) : 0, settings.text("transport"));
}

}  // namespace

int bench_exchange(const Settings& settings, Context& context) {
  const int ranks = ranks_of(settings, context);
  require(ranks >= 2, "bench exchange needs at least two ranks: start it with mpirun, or give --ranks 2");
  Report report(settings, context,
                {{"bytes", 10},
                 {"ranks", 5},
                 {"transport", 9},
                 {"min_us", 11},
                 {"median_us", 11},
                 {"p99_us", 11},
                 {"max_us", 11},
                 {"gb_per_s", 9, 3}});
  report.note(
      "every rank sends to its right neighbour while it receives from its left; gb_per_s = bytes / median, one "
      "direction");
  const Index repetitions = std::max<Index>(settings.count("repeats", 1), 1);
  Index lengths = 0;
  for (Index bytes = least_bytes; bytes <= most_bytes; bytes *= 8) ++lengths;
  report.expect(lengths);
  const auto body = recorded(settings, [&](RankTools& tools) {
    for (Index bytes = least_bytes; bytes <= most_bytes; bytes *= 8) {
      stop_together(tools.transport);
      const Samples times(shift_seconds(tools.transport, bytes, 1, repetitions));
      if (!tools.lead) continue;
      report.row({{"bytes", bytes},
                  {"ranks", ranks},
                  {"transport", tools.transport.name()},
                  {"min_us", times.least() * 1e6},
                  {"median_us", times.median() * 1e6},
                  {"p99_us", times.p99() * 1e6},
                  {"max_us", times.most() * 1e6},
                  {"gb_per_s", static_cast<double>(bytes) / times.median() * 1e-9}});
    }
  });
  report.collect([&] { context.on_every_rank(ranks, settings.number("timeout"), body); });
  return report.finish(std::nullopt, sentence(ranks, " ranks, 8 bytes to 16 MiB"));
}

}  // namespace annulus::app

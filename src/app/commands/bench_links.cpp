#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "annulus/base/error.hpp"
#include "annulus/transport/in_process.hpp"
#include "app/bench.hpp"
#include "app/link_times.hpp"
#include "app/timeline_file.hpp"

namespace annulus::app {
namespace {

constexpr Index most_bytes = Index{16} << 20;

int ranks_of(const Settings& settings, Context& context) {
  return context.ranks(settings.has("ranks") ? settings.count("ranks", 1) : 0, settings.text("transport"));
}

// Latency from short messages in turn, bandwidth from what a long one takes longer while another goes the other way.
Link link_between(Transport& transport, Rank a, Rank b, Index repetitions) {
  constexpr Index small = 8, large = Index{8} << 20;
  const double latency = Samples(pair_seconds(transport, a, b, small, false, repetitions)).median();
  const double long_one = Samples(pair_seconds(transport, a, b, large, true, repetitions)).median();
  return {latency, static_cast<double>(large) / std::max(long_one - latency, 1e-9)};
}

// The first pair of ranks on one host, and on two.
std::optional<std::pair<Rank, Rank>> first_pair(const std::vector<std::string>& hosts, bool same) {
  for (std::size_t a = 0; a < hosts.size(); ++a)
    for (std::size_t b = a + 1; b < hosts.size(); ++b)
      if ((hosts[a] == hosts[b]) == same) return std::pair{static_cast<Rank>(a), static_cast<Rank>(b)};
  return std::nullopt;
}

void measure_links(const Settings& settings, Context& context, Hardware& found, Report& report) {
  const Index repetitions = std::max<Index>(5, settings.count("repeats", 1));
  const double patience = settings.number("timeout");
  const auto keep = [&](LinkClass kind, const Link& link) {
    const auto place = static_cast<std::size_t>(kind);
    found.links[place] = link;
    report.row({{"what", sentence("link.", link_names[place])},
                {"latency_us", link.latency_seconds * 1e6},
                {"gb_per_s", link.bytes_per_second * 1e-9}});
  };
  if (context.lead()) {
    Fabric fabric(2, patience);
    std::vector<std::jthread> threads;
    Link link;
    threads.emplace_back([&] { link_between(*fabric.transport(1), 0, 1, repetitions); });
    link = link_between(*fabric.transport(0), 0, 1, repetitions);
    threads.clear();
    keep(LinkClass::process, link);
  }
  if (!context.under_mpi()) return;
  const std::vector<std::string> hosts = hosts_of_ranks(context, patience);
  found.ranks_per_node = context.ranks_per_node(context.ranks(0));
  for (const LinkClass kind : {LinkClass::shared, LinkClass::network}) {
    const auto pair = first_pair(hosts, kind == LinkClass::shared);
    if (!pair) continue;
    Link link;
    context.on_every_rank(context.ranks(0), patience, [&](RankTools& tools) {
      link = link_between(tools.transport, pair->first, pair->second, repetitions);
    });
    if (context.lead()) keep(kind, link);
  }
}

void measure_kernels(const Settings& settings, const Context& context, Hardware& found, Report& report) {
  const int threads =
      context.threads_per_rank(context.ranks(0), settings.has("threads") ? settings.count("threads", 1) : 0);
  const std::vector<Index> lengths =
      settings.has("tokens") ? counts_of(settings, "tokens") : std::vector<Index>{64, 256, 1024, 4096};
  for (const char* type : {"f32", "bf16", "f16"})
    for (const char* pass : {"forward", "backward"})
      for (const char* mask : {"full", "causal"}) {
        const auto chosen = [&](const char* option, const char* value) {
          return !settings.has(option) || settings.text(option) == value;
        };
        if (!chosen("dtype", type) || !chosen("pass", pass) || !chosen("mask", mask)) continue;
        const std::string name = sentence(type, ".", pass, ".", mask);
        const Settings asked = settings.with("dtype", type).with("pass", pass).with("mask", mask);
        for (Index tokens : lengths) {
          const Alone alone = run_alone(asked, case_of(asked, tokens), threads, 1, settings.count("repeats", 1));
          const double rate = alone.operations / Samples(alone.seconds).median();
          found.rates[name].push_back({static_cast<double>(tokens), rate});
          report.row({{"what", "kernel." + name}, {"tokens", tokens}, {"gflops", rate * 1e-9}});
        }
      }
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
  context.on_every_rank(ranks, settings.number("timeout"), recorded(settings, [&](RankTools& tools) {
                          for (Index bytes = 8; bytes <= most_bytes; bytes *= 8) {
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
                        }));
  return report.finish(std::nullopt, sentence(ranks, " ranks, 8 bytes to 16 MiB"));
}

int bench_calibrate(const Settings& settings, Context& context) {
  const std::string& path = settings.text("output");
  Report report(settings, context,
                {{"what", 28}, {"tokens", 7}, {"gflops", 10, 1}, {"latency_us", 11}, {"gb_per_s", 9, 3}});
  std::optional<TextDraft> draft;
  on_first_ranks(context, 1, settings.number("timeout"), [&](RankTools& tools) {
    together(tools.transport, [&] {
      if (path.empty()) return;
      require<Failure::file>(settings.flag("overwrite") || !std::filesystem::exists(path), settings.name_of("output"),
                             ": ", path, " exists: say --overwrite to replace it");
      draft.emplace(settings.name_of("output"), path);
    });
  });
  Hardware found;
  found.name = hosts_of_ranks(context, settings.number("timeout")).front();
  measure_links(settings, context, found, report);
  on_first_ranks(context, 1, settings.number("timeout"), [&](RankTools& tools) {
    together(tools.transport, [&] { measure_kernels(settings, context, found, report); });
  });
  if (!context.lead()) return 0;
  std::string command = "annulus";
  for (const std::string& argument : context.arguments()) command += " " + argument;
  const Case shape = case_of(settings, 1);
  const std::string page = hardware_page(
      found,
      sentence("Measured by: ", command, "\nKernel rates are medians of ", settings.text("repeats"),
               " passes of one rank with ", shape.shape.query_heads, ":", shape.shape.kv_heads, " heads x ",
               shape.shape.channels,
               " channels; links are medians between two ranks: latency of round trips,\nbandwidth while both send."));
  if (draft) {
    draft->commit(page);
  } else {
    std::printf("#\n%s", page.c_str());
  }
  return report.finish(std::nullopt, path.empty() ? "profile printed" : "wrote " + path);
}

}  // namespace annulus::app

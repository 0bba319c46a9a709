#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "annulus/base/error.hpp"
#include "annulus/transport/collectives.hpp"
#include "annulus/transport/in_process.hpp"
#include "app/bench.hpp"
#include "app/link_times.hpp"
#include "app/stop.hpp"

namespace annulus::app {
namespace {

constexpr Index least_repetitions = 5;

// Latency from short messages in turn, bandwidth from what a long one takes longer while another goes the other way.
LinkPrice link_between(Transport& transport, Rank a, Rank b, LinkClass kind, Index repetitions) {
  constexpr Index small = 8, large = Index{8} << 20;
  const double latency = Samples(pair_seconds(transport, a, b, small, false, repetitions)).median();
  const double long_one = Samples(pair_seconds(transport, a, b, large, true, repetitions)).median();
  return ordinary(kind, latency, static_cast<double>(large) / std::max(long_one - latency, 1e-9));
}

// What messages take between nodes that are so long that they are announced first, as most MPIs do, and from how many bytes on.
void measure_announced(Transport& transport, Rank a, Rank b, LinkPrice& link, Index repetitions) {
  constexpr Index least = Index{1} << 10, longest = Index{512} << 10, large = Index{8} << 20;
  const auto seconds = [&](Index bytes) {
    return Samples(pair_seconds(transport, a, b, bytes, true, repetitions)).median();
  };
  const double announced = seconds(longest);
  link.bytes_per_second = static_cast<double>(large - longest) / std::max(seconds(large) - announced, 1e-9);
  const auto latency = [&](Index bytes, double takes) {
    return takes - static_cast<double>(bytes) / link.bytes_per_second;
  };
  const double found = latency(longest, announced);
  if (found < 2 * link.latency_seconds) return;
  link.long_latency_seconds = found;
  for (Index bytes = longest; bytes >= least && latency(bytes, seconds(bytes)) > (link.latency_seconds + found) / 2;
       bytes /= 2)
    link.long_bytes = static_cast<double>(bytes);
}

// What goes on beside computing: as much computing as exchange, and how much less the two take together than one by one.
double hidden_between(Transport& transport, Rank a, Rank b, const LinkPrice& link, Index repetitions) {
  constexpr double wanted_seconds = 0.16;  // four batches of the engine
  constexpr Index most = Index{64} << 20;
  const auto bytes = std::min(most, static_cast<Index>(wanted_seconds * link.bytes_per_second));
  const double alone = Samples(pair_seconds(transport, a, b, bytes, true, repetitions)).median();
  const double both = Samples(busy_pair_seconds(transport, a, b, bytes, alone, repetitions)).median();
  return std::clamp(2 - both / alone, 0.0, 1.0);
}

// The first pair of ranks on one host, and on two.
std::optional<std::pair<Rank, Rank>> first_pair(const std::vector<std::string>& hosts, bool same) {
  for (std::size_t a = 0; a < hosts.size(); ++a)
    for (std::size_t b = a + 1; b < hosts.size(); ++b)
      if ((hosts[a] == hosts[b]) == same) return std::pair{static_cast<Rank>(a), static_cast<Rank>(b)};
  return std::nullopt;
}

void measure_links(const Settings& settings, Context& context, Hardware& found, Report& report) {
  const Index repetitions = std::max(least_repetitions, settings.count("repeats", 1));
  const double patience = settings.number("timeout");
  const auto keep = [&](LinkClass kind, const LinkPrice& link) {
    const auto place = static_cast<std::size_t>(kind);
    found.links[place] = link;
    report.row({{"what", sentence("link.", link_names[place])},
                {"latency_us", link.latency_seconds * 1e6},
                {"gb_per_s", link.bytes_per_second * 1e-9},
                {"hidden", link.hidden}});
    if (std::isfinite(link.long_bytes))
      report.row({{"what", sentence("... of ", static_cast<Index>(link.long_bytes), " bytes and more")},
                  {"latency_us", link.long_latency_seconds * 1e6}});
  };
  if (context.lead()) {
    Fabric fabric(2, patience);
    std::vector<std::jthread> threads;
    LinkPrice link;
    threads.emplace_back([&] { link_between(*fabric.transport(1), 0, 1, LinkClass::process, repetitions); });
    link = link_between(*fabric.transport(0), 0, 1, LinkClass::process, repetitions);
    threads.clear();
    keep(LinkClass::process, link);
  }
  if (!context.under_mpi()) return;
  const std::vector<std::string> hosts = hosts_of_ranks(context, patience);
  for (const LinkClass kind : {LinkClass::shared, LinkClass::network}) {
    const auto pair = first_pair(hosts, kind == LinkClass::shared);
    if (!pair) continue;
    LinkPrice link;
    context.on_every_rank(context.ranks(0), patience, [&](RankTools& tools) {
      const auto [a, b] = *pair;
      stop_together(tools.transport);
      link = link_between(tools.transport, a, b, kind, repetitions);
      if (kind == LinkClass::network) measure_announced(tools.transport, a, b, link, repetitions);
      link.hidden = hidden_between(tools.transport, a, b, link, repetitions);
    });
    if (context.lead()) keep(kind, link);
  }
}

// A case on every rank at the same time, each alone: seconds inside the kernel and beside it, the slowest rank's.
struct Busy {
  double compute = 0, rest = 0, operations = 0, pass_bytes = 0;
  double spread = 1;  // the median over the least
};

// Beyond what an undisturbed machine differs from itself.
constexpr double disturbed = 1.3;

// One line about what a busy machine does to rates.
class Doubts {
 public:
  void add(std::string what) {
    if (++count_ == 1) first_ = std::move(what);
  }
  void tell() const {
    if (count_ == 0) return;
    std::fprintf(stderr, "annulus: the machine seems disturbed: %s%s; measure again when it is idle\n", first_.c_str(),
                 count_ > 1 ? sentence(", and ", count_ - 1, " more").c_str() : "");
  }

 private:
  std::string first_;
  int count_ = 0;
};

Busy measure_busy(const Settings& settings, const Case& c, int threads, Transport& transport, Index repetitions) {
  Busy busy;
  Alone alone;
  const AloneChoice choice{1, repetitions, [&] { stop_together(transport); }, false};
  together(transport, [&] { alone = run_alone(settings, c, threads, choice); });
  std::vector<double> compute = alone.compute_seconds, rest = alone.seconds;
  for (std::size_t i = 0; i < rest.size(); ++i) rest[i] -= compute[i];
  all_max(transport, compute);
  all_max(transport, rest);
  // bytes of the passes over memory: what they take at one byte per second
  Prices prices = prices_of(c.shape, c.backward);
  const Schedule job = make_schedule({1, 1, 1}, "contiguous", Mask::parse(c.mask, {c.tokens, c.keys, c.documents}));
  const auto seconds = [&](double bytes_per_second) {
    prices.memory_bytes_per_second = bytes_per_second;
    const Estimate e = estimate(job, prices);
    return (c.backward ? e.backward : e.forward).seconds;
  };
  const double free = seconds(std::numeric_limits<double>::infinity());
  const Samples computed(compute);
  return {computed.median(), Samples(rest).median(), alone.operations, seconds(1) - free,
          computed.median() / std::max(computed.least(), 1e-9)};
}

// Bytes of keys and values per second that one query meets: so many that no cache holds them.
void measure_keys(const Settings& settings, int threads, RankTools& tools, Hardware& found, Report& report) {
  constexpr Index wanted = Index{64} << 20, least = 256, most = Index{1} << 20;
  const AttentionShape s = case_of(settings, 1).shape;
  const Index each = s.kv_heads * (s.channels + s.value_channels) * bytes_of(s.type);
  const Index keys = std::clamp(wanted / each, least, most);
  const Settings asked = settings.with("mask", "full").with("pass", "forward").with("keys", std::to_string(keys));
  const Busy busy = measure_busy(asked, case_of(asked, 1), threads, tools.transport, settings.count("repeats", 1));
  if (!tools.lead) return;
  const std::string type(name_of(s.type));
  const double rate = static_cast<double>(keys * each) / std::max(busy.compute, 1e-9);
  found.key_bytes_per_second[type] = rate;
  report.row({{"what", "keys." + type}, {"gb_per_s", rate * 1e-9}});
}

// As profiles have them: ascending, each once.
std::vector<Index> lengths_of(const Settings& settings) {
  std::vector<Index> lengths = counts_of(settings, "tokens");
  std::ranges::sort(lengths);
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

// Rates of the kernels by the size of a tile, all ranks of a node at work; and what a pass takes beside them.
void measure_kernels(const Settings& settings, const Context& context, RankTools& tools, Hardware& found,
                     Report& report) {
  const int threads = threads_of(settings, context, tools.transport.ranks());
  const std::vector<Index> lengths = lengths_of(settings);
  Doubts doubts;
  double rest = 0, bytes = 0;
  std::vector<double> starts;
  const auto chosen = [&](const char* option, const char* value) {
    return !settings.has(option) || settings.text(option) == value;
  };
  for (const char* type : {"f32", "bf16", "f16"}) {
    if (chosen("dtype", type)) measure_keys(settings.with("dtype", type), threads, tools, found, report);
    for (const char* pass : {"forward", "backward"})
      for (const char* mask : {"full", "causal"}) {
        const bool wanted =
            pass == std::string_view("forward") || chosen("pass", pass);  // no plan is without that pass
        if (!chosen("dtype", type) || !wanted || !chosen("mask", mask)) continue;
        const std::string name = sentence(type, ".", pass, ".", mask);
        const Settings asked = settings.with("dtype", type).with("pass", pass).with("mask", mask);
        double start = 0;
        for (Index tokens : lengths) {
          // short passes are disturbed more easily, and cost little
          const Index repetitions = settings.count("repeats", 1) * (tokens <= 256 ? 4 : 1);
          const Busy busy = measure_busy(asked, case_of(asked, tokens), threads, tools.transport, repetitions);
          if (tokens == lengths.front()) starts.push_back(start = busy.rest);
          if (tokens == lengths.back()) rest += std::max(0.0, busy.rest - start), bytes += busy.pass_bytes;
          if (!tools.lead) continue;
          const double rate = busy.operations / std::max(busy.compute, 1e-9);
          std::vector<RatePoint>& rates = found.rates[name];
          if (!rates.empty() && disturbed * rate < rates.back().operations_per_second)
            doubts.add(sentence("the rate of ", name, " falls at ", tokens, " tokens"));
          if (busy.spread > disturbed) doubts.add(sentence("repetitions of ", name, " differ at ", tokens, " tokens"));
          rates.push_back({static_cast<double>(tokens), rate});
          report.row(
              {{"what", "kernel." + name}, {"tokens", tokens}, {"gflops", rate * 1e-9}, {"spread", busy.spread}});
        }
      }
  }
  if (!tools.lead) return;
  doubts.tell();
  if (starts.empty()) return;
  found.seconds_per_pass = std::max(Samples(starts).median(), 1e-9);
  if (rest > 0) found.memory_bytes_per_second = bytes / rest;
  report.row({{"what", "pass"}, {"latency_us", *found.seconds_per_pass * 1e6}});
  if (rest > 0) report.row({{"what", "memory"}, {"gb_per_s", *found.memory_bytes_per_second * 1e-9}});
}

}  // namespace

int bench_calibrate(const Settings& settings, Context& context) {
  const std::string& path = settings.text("output");
  const double patience = settings.number("timeout");
  require(!settings.has("mask") || settings.text("mask") == "full" || settings.text("mask") == "causal",
          settings.name_of("mask"), " must be full or causal, which profiles have rates of: it is '",
          settings.text("mask"), "'");
  Report report(settings, context,
                {{"what", 28},
                 {"tokens", 7},
                 {"gflops", 10, 1},
                 {"latency_us", 11},
                 {"gb_per_s", 9, 3},
                 {"hidden", 7},
                 {"spread", 7}});
  for (const auto& [option, values] :
       {std::pair<const char*, std::vector<std::string>>{"dtype", {"f32", "bf16", "f16"}},
        {"pass", {"forward", "backward"}},
        {"mask", {"full", "causal"}}})
    if (!settings.has(option)) report.used(option, values);
  std::optional<TextDraft> draft;
  on_first_ranks(context, 1, patience, [&](RankTools& tools) {
    together(tools.transport, [&] {
      if (path.empty()) return;
      require<Failure::file>(settings.flag("overwrite") || !std::filesystem::exists(path), settings.name_of("output"),
                             ": ", path, " exists: say --overwrite to replace it");
      draft.emplace(settings.name_of("output"), path);
    });
  });
  Hardware found;
  found.name = hosts_of_ranks(context, patience).front();
  report.collect([&] { measure_links(settings, context, found, report); });
  const int ranks = context.ranks(settings.has("ranks") ? settings.count("ranks", 1) : 0, settings.text("transport"));
  found.ranks_per_node = context.ranks_per_node(ranks);
  report.collect([&] {
    context.on_every_rank(ranks, patience,
                          [&](RankTools& tools) { measure_kernels(settings, context, tools, found, report); });
  });
  if (!context.lead()) return 0;
  std::string command = "annulus";
  for (const std::string& argument : context.arguments()) command += " " + argument;
  const Case shape = case_of(settings, 1);
  const std::string page = hardware_page(
      found, sentence("Measured by: ", command, "\nKernel rates are medians of ", settings.text("repeats"),
                      " passes of ", ranks, ranks == 1 ? " rank" : " ranks at the same time, the slowest,", " with ",
                      shape.shape.query_heads, ":", shape.shape.kv_heads, " heads x ", shape.shape.channels,
                      " channels; links are medians between two ranks: latency of round trips,\nof long messages, if "
                      "they take another, and from how many bytes on; bandwidth while both "
                      "send, and what is "
                      "hidden of as much computing as exchange."));
  if (draft) {
    draft->commit(page);
  } else {
    std::printf("#\n%s", page.c_str());
  }
  return report.finish(std::nullopt, path.empty() ? "profile printed" : "wrote " + path);
}

}  // namespace annulus::app

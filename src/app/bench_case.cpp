#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>

#include "annulus/base/error.hpp"
#include "annulus/engine/recorded.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/backends.hpp"
#include "app/bench_pass.hpp"
#include "app/common_start.hpp"
#include "app/speeds.hpp"
#include "app/stop.hpp"
#include "app/timeline_file.hpp"

namespace annulus::app {
namespace {

// The first ranks of a larger transport; batches are counted by those alone.
class FirstRanks final : public Transport {
 public:
  FirstRanks(Transport& all, int ranks) : all_(all), ranks_(ranks) {}
  Rank rank() const override { return all_.rank(); }
  int ranks() const override { return ranks_; }
  std::string_view name() const override { return all_.name(); }
  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override { return all_.start(sends, recvs); }
  SharedMemory* shared() override { return all_.shared(); }
  void fail(const Error& reason) noexcept override { all_.fail(reason); }

 private:
  Transport& all_;
  int ranks_;
};

// The most memory this process has had since the last call, in bytes; 0 where the system does not tell.
double peak_memory() {
  std::ifstream status("/proc/self/status");
  double kilobytes = 0;
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) kilobytes = std::stod(line.substr(6));
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the mark
  return kilobytes * 1024;
}

// Each repetition's seconds, the slowest rank's, and of them the seconds of computing, the busiest rank's; on all ranks.
struct Repeated {
  std::vector<double> seconds, computing;
  std::vector<Message> messages;  // this rank's
  // What of a repetition the busiest rank does not compute: seconds, and as a share; medians of all.
  struct Exposed {
    double seconds, share;
  };
  Exposed exposed() const {
    std::vector<double> left, shares;
    for (std::size_t i = 0; i < seconds.size(); ++i) {
      left.push_back(std::max(0.0, seconds[i] - computing[i]));
      shares.push_back(left.back() / seconds[i]);
    }
    return {Samples(left).median(), Samples(shares).median()};
  }
};

Repeated repeat(BenchPass& bench, RankTools& tools, Index repetitions) {
  Repeated all;
  CommonStart start(tools.transport);
  for (Index i = 0; i < repetitions; ++i) {
    stop_together(tools.transport);
    start.wait();
    const auto messages = static_cast<std::ptrdiff_t>(tools.timeline.messages().size());
    const double begins = tools.timeline.now();
    bench.run();
    all.seconds.push_back(tools.timeline.now() - begins);
    all.computing.push_back(tools.timeline.total("compute", begins) + tools.timeline.total("merge", begins));
    const std::vector<Message>& so_far = tools.timeline.messages();
    all.messages.insert(all.messages.end(), so_far.begin() + messages, so_far.end());
  }
  all_max(tools.transport, all.seconds);
  all_max(tools.transport, all.computing);
  return all;
}

// The recorded messages of `passes` passes once more, batch after batch and nothing else: seconds per pass, the slowest rank's.
// transport: what moved them, between memory of the device; host: for the ranks to agree by.
double exchange_alone(std::span<const Message> recorded, Transport& transport, Transport& host, Device& device,
                      Index passes) {
  if (recorded.empty() && transport.ranks() == 1) return 0;
  std::map<Index, std::vector<Message>> batches;
  for (const Message& m : recorded) batches[m.batch].push_back(m);
  // ranks without messages in a batch take part all the same: batches are counted
  std::vector<double> range{batches.empty() ? -1e18 : -static_cast<double>(batches.begin()->first),
                            batches.empty() ? -1e18 : static_cast<double>(batches.rbegin()->first)};
  all_max(host, range);
  if (range[1] < 0) return 0;
  Index most_leaving = 0, most_arriving = 0;
  for (const auto& [batch, messages] : batches) {
    Index arriving = 0;
    for (const Message& m : messages)
      (m.sent ? most_leaving : arriving) = m.sent ? std::max(most_leaving, m.bytes) : arriving + m.bytes;
    most_arriving = std::max(most_arriving, arriving);
  }
  const Array out = Array::zeros(device, DType::f32, 1, 1, ceil_div(most_leaving, 4)),
              in = Array::zeros(device, DType::f32, 1, 1, ceil_div(most_arriving, 4));
  std::vector<double> seconds{0};
  CommonStart(host).wait();
  const auto begins = Timeline::Clock::now();
  for (auto batch = static_cast<Index>(-range[0]); batch <= static_cast<Index>(range[1]); ++batch) {
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    std::size_t at = 0;
    for (const Message& m : batches[batch]) {
      const auto bytes = static_cast<std::size_t>(m.bytes);
      if (m.sent) {
        sends.push_back({m.peer, {out.rows().data, bytes}});
      } else {
        recvs.push_back({m.peer, {in.rows().data + at, bytes}});
        at += bytes;
      }
    }
    transport.start(sends, recvs).wait();
  }
  seconds[0] = std::chrono::duration<double>(Timeline::Clock::now() - begins).count() / static_cast<double>(passes);
  all_max(host, seconds);
  return seconds[0];
}

// Operations per second of one rank alone, on the same mask over what one rank owns. Measured by rank 0 while the others wait.
std::vector<double> single_rank_rates(const Settings& settings, const Job& job, const Case& c, const RankTools& tools) {
  std::vector<double> rates(3);
  together(tools.transport, [&] {
    if (tools.transport.rank() != 0) return;
    constexpr Index most = 4096, least = 256;  // long enough for the full rate, short enough not to delay anybody
    Case small = c;
    small.tokens = small.keys = std::clamp(job.schedule.queries.largest(), least, most);
    if (!c.documents.empty()) small.documents = equal_documents(small.tokens, c.documents[1]);
    try {
      Mask::parse(small.mask, {small.tokens, small.keys, small.documents});
    } catch (const Error&) {
      small.mask = "causal";  // global tokens or a prefix beyond what one rank owns
    }
    const Alone alone = run_alone(settings, small, job.place.threads, {1, static_cast<Index>(rates.size())});
    for (std::size_t i = 0; i < rates.size(); ++i) rates[i] = alone.operations / alone.seconds[i];
  });
  all_max(tools.transport, rates);
  return rates;
}

}  // namespace

void on_first_ranks(Context& context, int ranks, double patience_seconds, const std::function<void(RankTools&)>& body) {
  const int all = context.under_mpi() ? context.ranks(0) : ranks;
  if (ranks == all) {
    return context.on_every_rank(all, patience_seconds, [&](RankTools& tools) {
      stop_together(tools.transport);
      body(tools);
    });
  }
  std::optional<Agreed> failure;
  context.on_every_rank(all, patience_seconds, [&](RankTools& tools) {
    if (tools.transport.rank() >= ranks) return;
    FirstRanks some(tools.transport, ranks);
    RankTools part = tools.over(some);
    try {
      body(part);
    } catch (const Agreed& e) {
      failure = e;
    }
  });
  // those that waited learn of a failure, too; those that measured, of a stop that only others were asked for
  context.on_every_rank(all, patience_seconds, [&](RankTools& tools) {
    together(tools.transport, [&] {
      if (failure) throw Error(*failure);
      if (stop_requested()) throw Error(Failure::stopped, "stopped on request");
    });
  });
}

// Printed, they fit into 140 columns.
std::vector<Column> attention_columns(const Settings& settings) {
  return {{"tokens", 8},
          {"ranks", 5},
          {"strategy", 11},
          {"partition", 10},
          {"mask", static_cast<int>(std::max<std::size_t>(6, settings.text("mask").size()))},
          {"heads", 0},
          {"dtype", 0},
          {"median_ms", 9},
          {"p99_ms", 8},
          {"tflops_per_rank", 8, 4, "TFLOP/s"},
          {"percent_of_kernel", 7, 1, "kernel%"},
          {"tokens_per_s", 9, 0, "tokens/s"},
          {"mb_per_rank", 7, 2, "MB/rank"},
          {"exposed_percent", 8, 1, "exposed%"},
          {"imbalance", 6, 3, "imbal."},
          {"peak_mb", 7, 1, "peak_MB"},
          {"max_error", 7, -1, "error"},
          {"predicted_ms", 9, 2, "predicted"}};
}

std::vector<Column> hidden_columns() {
  return {{"keys", 0},           {"pass", 0},    {"trace", 0},  {"kernel", 0}, {"channels", 0},
          {"value_channels", 0}, {"threads", 0}, {"min_ms", 0}, {"max_ms", 0}};
}

void explain_attention_columns(Report& report, const Settings& settings) {
  report.note("each repetition starts together and takes as long as its slowest rank; warm-ups " +
              settings.text("warmup") + ", repetitions " + settings.text("repeats"));
  report.note(sentence("TFLOP/s (of a rank) = ", settings.text("pass") == "backward" ? "2.5 x " : "",
                       "2 x visible pairs x query heads x (channels + value channels) / median / ranks",
                       settings.text("trace") == "none" ? "" : "; traces: channels more"));
  report.note(
      "kernel%: of one rank's kernel rate with the same mask over one rank's tokens, measured just before and after");
  report.note("MB/rank: received by the busiest rank in one pass; peak_MB: largest resident memory of a process");
  report.note(
      "exposed%: of the pass, when even the busiest rank does not compute, median of the repetitions; imbal.: busiest "
      "/ "
      "mean compute time");
  report.note(sentence("error: the largest of ", settings.text("rows"), " sampled rows of ",
                       settings.text("pass") == "backward" ? "dq" : "out", " against float64; predicted: ms by ",
                       settings.has("hardware") ? settings.text("hardware") : "no one (--hardware FILE)"));
}

Outcome measure(const Settings& settings, Context& context, const Case& c, const std::optional<Hardware>& hardware) {
  const Index warm_ups = settings.count("warmup"), repetitions = settings.count("repeats", 1),
              samples = settings.count("rows");
  Placement place{c.ranks, context.ranks_per_node(c.ranks), 1};
  place.threads = threads_of(settings, context, c.ranks);
  Outcome outcome;
  const auto body = [&](RankTools& given) {
    given.timeline.keep(true);
    RecordedTransport transport(given.transport, given.timeline);
    const bool recorded_already = settings.has("timeline");
    RankTools tools = given.over(recorded_already ? given.transport : transport);
    std::optional<Job> job;
    std::optional<Accelerator> accelerator;
    std::optional<BenchPass> bench;
    const Settings weighted = with_measured_weights(settings, place, tools);
    together(tools.transport, [&] {
      job = make_job(weighted.with("strategy", c.strategy), place, c.shape,
                     Mask::parse(c.mask, {c.tokens, c.keys, c.documents}), c.backward);
      check_memory(*job, c.backward, trace_bytes(c.traces, *job));
    });
    accelerator.emplace(settings, *job, tools, memory_of(*job, c.backward));
    together(tools.transport, [&] {
      require(!accelerator->on_gpu() || !c.traces.any(), settings.name_of("trace"),
              ": bench measures traces on CPUs only, and this is a GPU (--device cpu)");
      make_kernel(settings.text("kernel"), problem_of(c.shape, {1, 1, 1}, 0, 0),
                  {1, &accelerator->device()});  // or says why not
    });
    std::vector<double> kernel_rates = single_rank_rates(settings, *job, c, tools);
    malloc_trim(0);  // what earlier cases have freed does not count
    peak_memory();
    const auto pause = [] {
      if (stop_requested()) throw_stopped();
    };
    together(tools.transport, [&] {
      bench.emplace(settings, *job, tools, *accelerator, PassChoice{c.backward, c.traces, pause});
    });
    bench->prepare();
    for (Index i = 0; i < warm_ups; ++i) bench->run();
    const double begins = tools.timeline.now();
    const Repeated repeated = repeat(*bench, tools, repetitions);
    const Samples times(repeated.seconds);
    const auto passes = static_cast<double>(repetitions);
    double received = 0;
    for (const Message& m : repeated.messages)
      if (!m.sent && !m.control && m.peer != tools.transport.rank()) received += static_cast<double>(m.bytes);
    const double compute = (tools.timeline.total("compute", begins) + tools.timeline.total("merge", begins)) / passes;
    const double memory = peak_memory();
    const auto replay = [&] {
      return exchange_alone(repeated.messages, accelerator->on_gpu() ? accelerator->transport() : given.transport,
                            given.transport, accelerator->device(), repetitions);
    };
    replay();  // warms up
    const double exchange = replay();
    const Checked checked = bench->check(*job, tools.transport.rank(), samples);
    for (double rate : single_rank_rates(settings, *job, c, tools)) kernel_rates.push_back(rate);
    const double kernel_rate = Samples(kernel_rates).median();
    std::vector<double> most{compute, received / passes, memory, checked.over_tolerance, checked.error}, sum{compute};
    all_max(tools.transport, most);
    all_sum(tools.transport, sum);
    if (!tools.lead) return;
    const double total = std::max(times.median(), 1e-9), flops = pass_operations(*job, c) / total / c.ranks;
    Row& row = outcome.row;
    row["tokens"] = c.tokens;
    row["keys"] = c.keys;
    row["ranks"] = c.ranks;
    row["strategy"] = job->strategy;
    row["partition"] = job->schedule.queries.name();
    row["mask"] = c.mask;
    row["heads"] = sentence(c.shape.query_heads, ":", c.shape.kv_heads);
    row["dtype"] = name_of(c.shape.type);
    row["median_ms"] = total * 1e3;
    row["p99_ms"] = times.p99() * 1e3;
    row["tflops_per_rank"] = flops * 1e-12;
    row["percent_of_kernel"] = 100 * flops / kernel_rate;
    row["tokens_per_s"] = static_cast<double>(c.tokens) / total;
    row["mb_per_rank"] = most[1] * 1e-6;
    row["exposed_percent"] = 100 * repeated.exposed().share;
    row["imbalance"] = sum[0] > 0 ? most[0] * c.ranks / sum[0] : 1.0;
    row["peak_mb"] = most[2] * 1e-6;
    row["max_error"] = samples > 0 ? Row(most[4]) : Row(nullptr);
    row["predicted_ms"] = nullptr;
    if (hardware && !c.traces.any()) {  // a plan prices the passes
      const Estimate e = estimate(job->schedule, prices_of(*job, context, *hardware, c.backward));
      row["predicted_ms"] = 1e3 * (c.backward ? e.backward : e.forward).seconds;
    }
    row["grid"] = to_text(job->schedule.grid);
    row["pass"] = c.backward ? "backward" : "forward";
    row["trace"] = c.trace;
    row["channels"] = c.shape.channels;
    row["value_channels"] = c.shape.value_channels;
    row["threads"] = place.threads;
    row["kernel"] = bench->kernel();
    row["kernel_tflops"] = kernel_rate * 1e-12;
    row["compute_ms"] = Samples(repeated.computing).median() * 1e3;
    row["exposed_ms"] = repeated.exposed().seconds * 1e3;
    row["exchange_ms"] = exchange * 1e3;
    row["min_ms"] = times.least() * 1e3;
    row["max_ms"] = times.most() * 1e3;
    row["repetitions_ms"] = Row::array();
    for (double s : times.seconds) row["repetitions_ms"].push_back(s * 1e3);
    outcome.error_over_tolerance = most[3];
  };
  on_first_ranks(context, c.ranks, settings.number("timeout"), recorded(settings, body));
  return outcome;
}

}  // namespace annulus::app

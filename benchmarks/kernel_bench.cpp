// kernel_bench: GFLOP/s of the CPU kernels, and which share that is of what the arithmetic units can do (Google Benchmark).
//
//   kernel_bench --benchmark_filter=forward/f32/avx512/64/full [--benchmark_repetitions=9]
//                [--tokens=4096] [--heads=2] [--threads=1] [--window=512] [--clock=wall]
//
// Names are pass/type/tier/channels/mask; --benchmark_list_tests lists them. Counted are 4 x heads x visible pairs x channels
// operations for forward, 2.5 times that for backward, half of it for observe. Every iteration times the kernel between two
// loops of multiply-adds of the same instructions; reported is the median over the iterations (of_peak: of the share of those
// loops, from low to high its quartiles). Multiplying by threads assumes that the peak scales with them. --clock=cpu: time
// that this process computed, which others on a shared machine disturb less.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "annulus/kernel/cpu.hpp"
#include "annulus/kernel/partial.hpp"
#include "kernel/cpu/tier.hpp"

using namespace annulus;

namespace {

struct Case {
  std::string tier, pass, mask;
  DType type;
  Index channels, tokens, heads;
  int threads;
};

bool processor_time = false;

/// Seconds; with --clock=cpu those that this process computed, which others on a shared machine disturb less.
double now() {
  if (processor_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const cpu::Tier& code_of(std::string_view tier) {
  if (tier.starts_with("amx")) return *cpu::amx_bf16_tier;
  if (tier == "avx512-bf16") return *cpu::avx512_bf16_tier;
  return tier == "avx512" ? *cpu::avx512_tier : tier == "avx2" ? *cpu::avx2_tier : *cpu::portable_tier;
}

/// GFLOP/s of one core over about 3 ms.
double peak_rate(const cpu::Tier& code) {
  volatile double sink = 0;
  double best = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const Index repeats = code.width > 64 ? 5000 : 50000;
    const double begin = now();
    sink = sink + code.peak(repeats);
    best = std::max(best, static_cast<double>(repeats * 96 * 2 * code.width) / (now() - begin) * 1e-9);
  }
  return best;
}

Array random_rows(Device& device, DType type, Index tokens, Index heads, Index channels, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Array numbers(device, DType::f32, tokens, heads, channels);
  for (float& x : numbers.elements<float>()) x = normal(random);
  Array rows(device, type, tokens, heads, channels);
  convert(numbers, rows);
  return rows;
}

std::vector<Tile> tiles_of(const Case& c) {
  Band band;
  if (c.mask == "causal") band.hi = 0;
  if (c.mask.starts_with("window:")) band = {-std::stoll(c.mask.substr(7)) + 1, 0};
  return {Tile{.q = {0, c.tokens}, .k = {0, c.tokens}, .band = band}};
}

/// What every pass needs, with the forward pass done once.
struct Arrays {
  Arrays(Device& device, const Case& c, Kernel& kernel)
      : q(random_rows(device, c.type, c.tokens, c.heads, c.channels, 1)),
        k(random_rows(device, c.type, c.tokens, c.heads, c.channels, 2)),
        v(random_rows(device, c.type, c.tokens, c.heads, c.channels, 3)),
        dout(random_rows(device, c.type, c.tokens, c.heads, c.channels, 4)),
        lse(Array::zeros(device, DType::f32, c.tokens, c.heads, 1)),
        delta(Array::zeros(device, DType::f32, c.tokens, c.heads, 1)),
        dq(Array::zeros(device, DType::f32, c.tokens, c.heads, c.channels)),
        dk(Array::zeros(device, DType::f32, c.tokens, c.heads, c.channels)),
        dv(Array::zeros(device, DType::f32, c.tokens, c.heads, c.channels)),
        number(Array::zeros(device, DType::f32, c.tokens, c.heads, 1)),
        received(Array::zeros(device, DType::f32, c.tokens, c.heads, 1)),
        partial(device, DType::f32, c.tokens, c.heads, c.channels) {
    kernel.forward(tiles_of(c), q, {k, v}, partial.view());
    finish(partial.view(), lse);
    row_dot(dout, partial.view().out, delta);
  }
  Array q, k, v, dout, lse, delta, dq, dk, dv, number, received;
  PartialArray partial;
};

double seconds_of(const Case& c, Kernel& kernel, Arrays& arrays) {
  const std::vector<Tile> tiles = tiles_of(c);
  reset(arrays.partial.view());
  const double begin = now();
  if (c.pass == "forward") kernel.forward(tiles, arrays.q, {arrays.k, arrays.v}, arrays.partial.view());
  if (c.pass == "backward")
    kernel.backward(tiles, {arrays.q, arrays.dout, arrays.lse, arrays.delta}, {arrays.k, arrays.v},
                    {arrays.dq, arrays.dk, arrays.dv});
  if (c.pass == "observe") {
    Observation into;
    into.entropy = arrays.number;
    into.received = arrays.received;
    kernel.observe(tiles, arrays.q, arrays.k, arrays.lse, into);
  }
  return now() - begin;
}

double median(std::vector<double> values, double at = 0.5) {
  std::ranges::sort(values);
  return values[static_cast<std::size_t>(at * static_cast<double>(values.size() - 1) + 0.5)];
}

void run(const Case& c, benchmark::State& state) {
  if (const std::string refusal = cpu_tier_refusal(c.tier); !refusal.empty()) {
    state.SkipWithError(refusal.c_str());
    return;
  }
  CpuDevice device;
  const Problem problem{.query_heads = c.heads,
                        .kv_heads = c.heads,
                        .channels = c.channels,
                        .value_channels = c.channels,
                        .type = c.type,
                        .softmax_scale = 1 / std::sqrt(static_cast<double>(c.channels))};
  const auto kernel = make_tiled_kernel(problem, {.threads = c.threads}, c.tier);
  Arrays arrays(device, c, *kernel);
  const double counted = c.pass == "forward" ? 4 : c.pass == "backward" ? 10 : 2;
  const double operations = counted * static_cast<double>(tiles_of(c)[0].pairs() * c.heads * c.channels) * 1e-9;
  std::vector<double> rates, shares;
  for ([[maybe_unused]] auto iteration : state) {
    const double before = peak_rate(code_of(c.tier)), seconds = seconds_of(c, *kernel, arrays);
    const double peak = (before + peak_rate(code_of(c.tier))) / 2 * (processor_time ? 1 : c.threads);
    state.SetIterationTime(seconds);
    rates.push_back(operations / seconds);
    shares.push_back(rates.back() / peak);
  }
  state.counters["GFLOP/s"] = median(rates);
  state.counters["of_peak"] = median(shares);
  state.counters["low"] = median(shares, 0.25);
  state.counters["high"] = median(shares, 0.75);
}

/// Takes --name=value out of the words.
std::string taken(std::vector<char*>& words, std::string_view name, std::string otherwise) {
  const std::string begin = sentence("--", name, "=");
  const auto found =
      std::ranges::find_if(words, [&](const char* word) { return std::string_view(word).starts_with(begin); });
  if (found == words.end()) return otherwise;
  std::string value = std::string(*found).substr(begin.size());
  words.erase(found);
  return value;
}

}  // namespace

int main(int count, char** given) try {
  std::vector<char*> words(given, given + count);
  const Index tokens = std::stol(taken(words, "tokens", "4096")), heads = std::stol(taken(words, "heads", "2"));
  const int threads = std::stoi(taken(words, "threads", "1"));
  const std::string window = taken(words, "window", "512");
  processor_time = taken(words, "clock", "wall") == "cpu";
  count = static_cast<int>(words.size());
  benchmark::Initialize(&count, words.data());
  if (benchmark::ReportUnrecognizedArguments(count, words.data())) return 2;
  for (const char* pass : {"forward", "backward", "observe"})
    for (const char* type : {"f32", "bf16", "f16"})
      for (const std::string_view tier : cpu_tiers())
        for (const Index channels : {64, 128})
          for (const std::string& mask : {std::string("full"), std::string("causal"), "window:" + window}) {
            const Case c{std::string(tier), pass, mask, parse_dtype(type), channels, tokens, heads, threads};
            benchmark::RegisterBenchmark(sentence(pass, "/", type, "/", tier, "/", channels, "/", mask).c_str(),
                                         [c](benchmark::State& state) { run(c, state); })
                ->UseManualTime()
                ->Unit(benchmark::kMillisecond)
                ->Iterations(9);
          }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return error.exit_code();
} catch (const std::exception&) {
  std::fprintf(stderr, "kernel_bench: --tokens, --heads and --threads take a number\n");
  return 2;
}

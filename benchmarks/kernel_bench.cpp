// kernel_bench: GFLOP/s of the CPU kernels, and which share that is of what the arithmetic units can do.
//
//   kernel_bench [--tier avx2] [--type f32] [--pass forward] [--channels 64] [--mask full] [--tokens 4096] [--heads 4]
//                [--threads 1] [--repeats 9] [--clock wall]
//
// Without an option that names a tier, a type, a pass, a number of channels or a mask, all of them are run. Counted are
// 4 x heads x visible pairs x channels operations for forward, 2.5 times that for backward, half of it for observe.
// Every repeat times the kernel between two loops of multiply-adds of the same width (...-bf16: of bf16 numbers); reported are medians over
// the repeats and the quartiles of the share. Multiplying by threads assumes that the peak scales with them.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <map>
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
  int threads, repeats;
};

bool processor_time = false;

/// Seconds; with --clock cpu those that this process computed, which others on a shared machine disturb less.
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

void run(const Case& c) {
  if (const std::string refusal = cpu_tier_refusal(c.tier); !refusal.empty()) {
    std::printf("%-11s skipped: %s\n", c.tier.c_str(), refusal.c_str());
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
  const double flops = counted * static_cast<double>(tiles_of(c)[0].pairs() * c.heads * c.channels);
  std::vector<double> rates, shares;
  for (int repeat = 0; repeat < c.repeats; ++repeat) {
    const double before = peak_rate(code_of(c.tier)), seconds = seconds_of(c, *kernel, arrays);
    const double peak = (before + peak_rate(code_of(c.tier))) / 2 * (processor_time ? 1 : c.threads);
    rates.push_back(flops / seconds * 1e-9);
    shares.push_back(rates.back() / peak);
  }
  std::ranges::sort(rates);
  std::ranges::sort(shares);
  const std::size_t middle = rates.size() / 2, quarter = rates.size() / 4;
  std::printf("%-11s %-5s %-8s %4ld %-10s %6ld %3ld %2d  %8.1f  %5.1f%%  [%.1f, %.1f]\n", c.tier.c_str(),
              name_of(c.type).data(), c.pass.c_str(), static_cast<long>(c.channels), c.mask.c_str(),
              static_cast<long>(c.tokens), static_cast<long>(c.heads), c.threads, rates[middle], 100 * shares[middle],
              100 * shares[quarter], 100 * shares[shares.size() - 1 - quarter]);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** words) try {
  std::map<std::string, std::vector<std::string>> options{
      {"--tier", {"amx-bf16", "amx-split", "amx-fast", "avx512-bf16", "avx512", "avx2", "portable"}},
      {"--type", {"f32", "bf16", "f16"}},
      {"--pass", {"forward", "backward", "observe"}},
      {"--channels", {"64", "128"}},
      {"--mask", {"full", "causal"}},
      {"--tokens", {"4096"}},
      {"--heads", {"2"}},
      {"--threads", {"1"}},
      {"--repeats", {"9"}},
      {"--clock", {"wall"}}};
  for (int i = 1; i < count; i += 2) {
    require(options.contains(words[i]) && i + 1 < count, "not an option with a value: ", words[i]);
    options[words[i]] = {words[i + 1]};
  }
  processor_time = options["--clock"][0] == "cpu";
  std::printf(
      "tier        type  pass     chan mask       tokens  hd th   GFLOP/s   share  quartiles (share of the FMA "
      "peak)\n");
  const auto number = [&](const char* name) { return std::stoi(options[name][0]); };
  for (const std::string& tier : options["--tier"])
    for (const std::string& type : options["--type"])
      for (const std::string& pass : options["--pass"])
        for (const std::string& channels : options["--channels"])
          for (const std::string& mask : options["--mask"])
            run({tier, pass, mask, parse_dtype(type), std::stol(channels), number("--tokens"), number("--heads"),
                 number("--threads"), number("--repeats")});
  return 0;
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return error.exit_code();
}

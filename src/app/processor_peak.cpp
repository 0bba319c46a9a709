#include "app/processor_peak.hpp"

#include <barrier>
#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "kernel/cpu/tier.hpp"

namespace annulus::app {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

double processor_peak(std::string_view kernel, int threads) {
  const cpu::Tier* tier = kernel.starts_with("tiled-amx-") ? cpu::amx_bf16_tier
                          : kernel == "tiled-avx512-bf16"  ? cpu::avx512_bf16_tier
                          : kernel == "tiled-avx512"       ? cpu::avx512_tier
                          : kernel == "tiled-avx2"         ? cpu::avx2_tier
                          : kernel == "tiled-portable"     ? cpu::portable_tier
                                                           : nullptr;
  if (tier == nullptr) return 0;
  using Clock = std::chrono::steady_clock;
  // Bursts of about 0.2 ms: long ones heat the processor, and what is measured after them pays for it.
  const Index repeats = tier == cpu::amx_bf16_tier ? 320 : 12000;
  constexpr int bursts = 8;  // the best of several, each short enough to fall between interruptions
  std::vector<double> rates(static_cast<std::size_t>(threads)), sums(rates.size());
  std::barrier together(threads);
  const auto measure = [&](std::size_t t) {
    for (int i = 0; i < bursts; ++i) {
      together.arrive_and_wait();
      const auto begins = Clock::now();
      sums[t] += tier->peak(repeats);
      const double seconds = std::chrono::duration<double>(Clock::now() - begins).count();
      rates[t] = std::max(rates[t], static_cast<double>(repeats * 96 * 2 * tier->width) / seconds);
    }
  };
  std::vector<std::thread> others;
  for (std::size_t t = 1; t < rates.size(); ++t) others.emplace_back(measure, t);
  measure(0);
  for (std::thread& other : others) other.join();
  double all = 0;
  for (double rate : rates) all += rate;
  return all;
}

}  // namespace annulus::app

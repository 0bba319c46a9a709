#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <array>
#include <chrono>

#include "annulus/base/error.hpp"
#include "annulus/kernel/cpu.hpp"
#include "kernel/cpu/tiled.hpp"

// The table of tiers, and which of them this machine can run.

namespace annulus {
namespace {

using namespace cpu;

struct TierRow {
  std::string_view tier, name;
  const Tier* const* code;
  std::size_t needs;   ///< so many of the features below, from the first one
  bool tiles = false;  ///< and those of tiles
};

// Named as in Linux's /proc/cpuinfo. What the processor has and the operating system saves the registers of.
struct FeatureRow {
  std::string_view name;
  bool (*offered)();
};
#if defined(__x86_64__)
// The processor has tiles, the system saves them, and it lets this process have them: Linux grants them on demand only.
bool has_tiles(unsigned bit) {
#if defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & (1U << bit)) == 0) return false;
  constexpr long ask_for_state = 0x1023, tile_data = 18;
  static const bool granted = syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
  return granted;
#else
  return bit > 31;
#endif
}
// Every processor with AVX2 has F16C too; clang 14 cannot ask for it by name.
constexpr std::array<FeatureRow, 9> features{{
    {"avx2", [] { return __builtin_cpu_supports("avx2") != 0; }},
    {"fma", [] { return __builtin_cpu_supports("fma") != 0; }},
    {"avx512f", [] { return __builtin_cpu_supports("avx512f") != 0; }},
    {"avx512bw", [] { return __builtin_cpu_supports("avx512bw") != 0; }},
    {"avx512dq", [] { return __builtin_cpu_supports("avx512dq") != 0; }},
    {"avx512vl", [] { return __builtin_cpu_supports("avx512vl") != 0; }},
    {"avx512_bf16", [] { return __builtin_cpu_supports("avx512bf16") != 0; }},
    {"amx_tile", [] { return has_tiles(24); }},
    {"amx_bf16", [] { return has_tiles(22); }},
}};
#else
constexpr std::array<FeatureRow, 0> features{};
#endif
constexpr std::size_t of_avx2 = 2, of_avx512 = 6, of_avx512_bf16 = 7, first_of_tiles = 7;

constexpr std::array<TierRow, 7> tiers{{
    {"amx-bf16", "tiled-amx-bf16", &amx_bf16_tier, of_avx512, true},
    {"amx-split", "tiled-amx-split", &amx_split_tier, of_avx512, true},
    {"amx-fast", "tiled-amx-fast", &amx_fast_tier, of_avx512, true},
    {"avx512-bf16", "tiled-avx512-bf16", &avx512_bf16_tier, of_avx512_bf16},
    {"avx512", "tiled-avx512", &avx512_tier, of_avx512},
    {"avx2", "tiled-avx2", &avx2_tier, of_avx2},
    {"portable", "tiled-portable", &portable_tier, 0},
}};

// "avx512_bf16", "amx_tile, amx_bf16"; empty when nothing is missing.
std::string missing_features(const TierRow& tier) {
  std::string names;
  for (std::size_t i = 0; i < features.size(); ++i) {
    const bool needed = i < tier.needs || (tier.tiles && i >= first_of_tiles);
    if (needed && !features[i].offered()) names += sentence(names.empty() ? "" : ", ", features[i].name);
  }
  return names;
}

// The best of a few bursts of 10 microseconds.
double products_per_second(const Tier& tier) {
  constexpr Index repeats = 400;
  double best = 0;
  volatile double sink = 0;
  for (int burst = 0; burst < 5; ++burst) {
    const auto begin = std::chrono::steady_clock::now();
    sink = sink + tier.peak(repeats);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(repeats * 96 * tier.width) / seconds.count());
  }
  return best;
}

const TierRow* find(std::string_view tier) {
  for (const TierRow& row : tiers)
    if (row.tier == tier) return &row;
  return nullptr;
}

}  // namespace

std::vector<std::string_view> cpu_tiers() {
  std::vector<std::string_view> names;
  for (const TierRow& row : tiers) names.push_back(row.tier);
  return names;
}

std::vector<CpuFeature> cpu_features() {
  std::vector<CpuFeature> all;
  for (const FeatureRow& row : features) all.push_back({row.name, row.offered()});
  return all;
}

std::string cpu_tier_refusal(std::string_view tier) {
  const TierRow* row = find(tier);
  if (row == nullptr) return sentence("no tier is called ", tier);
  if (*row->code == nullptr) return sentence("this build has no ", tier, " code");
  const std::string missing = missing_features(*row);
  return missing.empty() ? "" : sentence(missing, " missing: not offered by this processor or its operating system");
}

bool cpu_pairs_pay() {
  static const bool pay = products_per_second(*avx512_bf16_tier) > 1.25 * products_per_second(*avx512_tier);
  return pay;
}

std::unique_ptr<Kernel> make_tiled_kernel(const Problem& problem, const KernelOptions& options, std::string_view tier) {
  const std::string refusal = cpu_tier_refusal(tier);
  require(refusal.empty(), "the ", tier, " kernel cannot run here: ", refusal);
  const TierRow& row = *find(tier);
  return cpu::make_kernel_of_tier(problem, options, row.name, **row.code);
}

}  // namespace annulus

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
  bool (*permitted)();
};

bool always() { return true; }
#if defined(__x86_64__)
// Both ask the operating system too: a tier whose registers it does not save is not reported.
// Every processor with AVX2 has F16C too; clang 14 cannot ask for it by name.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
// The processor has tiles, the system saves them, and it lets this process have them: Linux grants them on demand only.
bool has_amx_bf16() {
#if defined(__linux__)
  constexpr unsigned amx_bf16 = 1U << 22U, amx_tile = 1U << 24U;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!has_avx512() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & amx_bf16) == 0 || (d & amx_tile) == 0) return false;
  constexpr long ask_for_state = 0x1023, tile_data = 18;
  static const bool granted = syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
  return granted;
#else
  return false;
#endif
}
#else
bool has_amx_bf16() { return false; }
bool has_avx2() { return false; }
bool has_avx512() { return false; }
bool has_avx512_bf16() { return false; }
#endif

constexpr std::array<TierRow, 7> tiers{{
    {"amx-bf16", "tiled-amx-bf16", &amx_bf16_tier, has_amx_bf16},
    {"amx-split", "tiled-amx-split", &amx_split_tier, has_amx_bf16},
    {"amx-fast", "tiled-amx-fast", &amx_fast_tier, has_amx_bf16},
    {"avx512-bf16", "tiled-avx512-bf16", &avx512_bf16_tier, has_avx512_bf16},
    {"avx512", "tiled-avx512", &avx512_tier, has_avx512},
    {"avx2", "tiled-avx2", &avx2_tier, has_avx2},
    {"portable", "tiled-portable", &portable_tier, always},
}};

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

std::string cpu_tier_refusal(std::string_view tier) {
  const TierRow* row = find(tier);
  if (row == nullptr) return sentence("no tier is called ", tier);
  if (*row->code == nullptr) return sentence("this build has no ", tier, " code");
  if (!row->permitted()) return sentence("this processor or its operating system does not offer ", tier);
  return {};
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

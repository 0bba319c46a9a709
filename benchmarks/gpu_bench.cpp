#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/kernel/cuda.hpp"
#include "annulus/memory/cuda.hpp"
#include "annulus/memory/numbers16.hpp"

// Rates of the GPU kernels: 64 query heads, 8 key/value heads, random numbers, full and causal, forward and backward.
// A line is kernel, tokens, channels, mask, pass, seconds (median), operations per second. A kernel stops at the length that
// takes it longer than a second. Usage: gpu_bench [--csv FILE]

namespace annulus {
namespace {

constexpr Index query_heads = 64, kv_heads = 8;

struct KernelMaker {
  std::string_view name;
  std::unique_ptr<Kernel> (*make)(const Problem&, Device&);
};
std::unique_ptr<Kernel> make_wgmma(const Problem& problem, Device& device) {
  return make_cuda_wgmma_kernel(problem, device);
}
constexpr KernelMaker kernels[]{
    {"cuda-simt", make_cuda_simt_kernel}, {"cuda-mma", make_cuda_mma_kernel}, {"cuda-wgmma", make_wgmma}};

Array random_rows(Device& device, Index tokens, Index heads, Index channels) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  // one token of random numbers would repeat: a prime number of them does not, at any place of a block
  std::vector<std::uint16_t> numbers(static_cast<std::size_t>(tokens * heads * channels)), some(65537);
  for (auto& x : some) x = to_bf16(normal(random));
  for (std::size_t n = 0; n < numbers.size(); ++n) numbers[n] = some[n % some.size()];
  Array rows(device, DType::bf16, tokens, heads, channels);
  device.copy_rows(dense_rows(numbers.data(), DType::bf16, tokens, heads, channels), rows);
  return rows;
}

template <class Work>
double median_seconds(Device& device, const Work& work) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> all;
  double total = 0;
  work();
  device.finish();
  while (all.size() < 3 || (total < 0.3 && all.size() < 200)) {
    const auto begins = Clock::now();
    work();
    device.finish();
    all.push_back(std::chrono::duration<double>(Clock::now() - begins).count());
    total += all.back();
    if (total > 2) break;
  }
  std::ranges::nth_element(all, all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2));
  return all[all.size() / 2];
}

struct Case {
  Index tokens, channels;
  bool causal;
};

// Seconds of forward and backward.
std::pair<double, double> measure(Device& device, const KernelMaker& maker, const Case& c) {
  const Problem problem{.query_heads = query_heads,
                        .kv_heads = kv_heads,
                        .channels = c.channels,
                        .value_channels = c.channels,
                        .group = query_heads / kv_heads,
                        .type = DType::bf16,
                        .softmax_scale = 1 / std::sqrt(static_cast<double>(c.channels))};
  const auto kernel = maker.make(problem, device);
  const Array q = random_rows(device, c.tokens, query_heads, c.channels),
              k = random_rows(device, c.tokens, kv_heads, c.channels),
              v = random_rows(device, c.tokens, kv_heads, c.channels),
              dout = random_rows(device, c.tokens, query_heads, c.channels);
  const auto f32 = [&](Index heads, Index channels) {
    return Array::zeros(device, DType::f32, c.tokens, heads, channels);
  };
  const Array out = f32(query_heads, c.channels), top = f32(query_heads, 1), sum = f32(query_heads, 1),
              lse = f32(query_heads, 1), delta = f32(query_heads, 1), dq = f32(query_heads, c.channels),
              dk = f32(kv_heads, c.channels), dv = f32(kv_heads, c.channels);
  const Tile tile{{0, c.tokens}, {0, c.tokens}, c.causal ? Band{-far, 0} : Band{}};
  const Partial partial{out, top, sum};
  const double forward = median_seconds(device, [&] {
    kernel->reset(partial);
    kernel->forward({&tile, 1}, q, {k, v}, partial);
    kernel->finish(partial, lse);
  });
  kernel->row_dot(dout, out, delta);
  const double backward = median_seconds(device, [&] {
    kernel->backward({&tile, 1}, {q, dout, lse, delta}, {k, v}, {dq, dk, dv});
  });
  return {forward, backward};
}

void run(const char* csv) {
  require(cuda_refusal().empty(), cuda_refusal());
  std::ofstream file;
  if (csv != nullptr) file.open(csv);
  file << "kernel,tokens,channels,mask,pass,seconds,operations_per_second\n";
  const auto device = make_cuda_device(0);
  {
    constexpr Index bytes = Index{4} << 30;
    const Array a = Array::zeros(*device, DType::f32, bytes / 4, 1, 1), b(*device, DType::f32, bytes / 4, 1, 1);
    const double seconds = median_seconds(*device, [&] { device->copy_rows(a, b); });
    std::printf("%s: copy %.2f TB/s\n", device->name().c_str(), 2e-12 * static_cast<double>(bytes) / seconds);
  }
  for (const KernelMaker& maker : kernels)
    for (const Index channels : {64, 128})
      for (const bool causal : {false, true})
        for (Index tokens = 2048; tokens <= 32768; tokens *= 2) {
          const auto [forward, backward] = measure(*device, maker, {tokens, channels, causal});
          const double operations = 4.0 * static_cast<double>(tokens) * static_cast<double>(tokens) *
                                    static_cast<double>(query_heads * channels) / (causal ? 2 : 1);
          const auto line = [&](const char* pass, double seconds, double work) {
            std::printf("%-12s %6lld tokens, %3lld channels, %-6s %-8s %8.3f ms %8.1f TFLOP/s\n", maker.name.data(),
                        static_cast<long long>(tokens), static_cast<long long>(channels), causal ? "causal" : "full",
                        pass, seconds * 1e3, work / seconds * 1e-12);
            file << maker.name << ',' << tokens << ',' << channels << ',' << (causal ? "causal" : "full") << ',' << pass
                 << ',' << seconds << ',' << work / seconds << '\n';
          };
          line("forward", forward, operations);
          line("backward", backward, 2.5 * operations);
          if (forward + backward > 1) break;
        }
}

}  // namespace
}  // namespace annulus

int main(int argc, char** argv) {
  try {
    annulus::run(argc == 3 && std::string_view(argv[1]) == "--csv" ? argv[2] : nullptr);
    return 0;
  } catch (const annulus::Error& e) {
    std::fprintf(stderr, "gpu_bench: %s\n", e.what());
    return e.exit_code();
  }
}

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <random>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/kernel/cuda.hpp"
#include "annulus/memory/cuda.hpp"
#include "annulus/memory/numbers16.hpp"

// Rates of the GPU kernels: 64 query heads, 8 key/value heads, random numbers, full and causal, forward and backward.
// A line is kernel, tokens, channels, mask, pass, seconds (median), operations per second. A kernel stops at the length that
// takes it longer than a second; one that this GPU cannot run is named with the reason. Then two prices that a ring pays:
// multiprocessors left to the exchange, and keys that come in two blocks instead of one. Usage: gpu_bench [--csv FILE]

namespace annulus {
namespace {

constexpr Index query_heads = 64, kv_heads = 8;

struct KernelMaker {
  std::string_view name;
  std::function<std::unique_ptr<Kernel>(const Problem&, Device&)> make;
};
KernelMaker wgmma_on(int blocks) {
  return {"cuda-wgmma",
          [blocks](const Problem& problem, Device& device) { return make_cuda_wgmma_kernel(problem, device, blocks); }};
}
const KernelMaker kernels[]{{"cuda-simt", make_cuda_simt_kernel}, {"cuda-mma", make_cuda_mma_kernel}, wgmma_on(0)};

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

Problem problem_of(Index channels) {
  return {.query_heads = query_heads,
          .kv_heads = kv_heads,
          .channels = channels,
          .value_channels = channels,
          .group = query_heads / kv_heads,
          .type = DType::bf16,
          .softmax_scale = 1 / std::sqrt(static_cast<double>(channels))};
}

double operations(const Case& c) {
  return 4.0 * static_cast<double>(c.tokens) * static_cast<double>(c.tokens) *
         static_cast<double>(query_heads * c.channels) / (c.causal ? 2 : 1);
}

// Seconds of forward and backward. blocks: keys come in so many calls, as they do in a ring.
std::pair<double, double> measure(Device& device, const KernelMaker& maker, const Case& c, Index blocks = 1) {
  const auto kernel = maker.make(problem_of(c.channels), device);
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
  std::vector<Tile> tiles;
  for (Index b = 0; b < blocks; ++b) {
    const Range keys{c.tokens * b / blocks, c.tokens * (b + 1) / blocks};
    tiles.push_back({{0, c.tokens}, keys, c.causal ? Band{-far, -keys.begin} : Band{}});
  }
  const Partial partial{out, top, sum};
  const double forward = median_seconds(device, [&] {
    kernel->reset(partial);
    for (const Tile& tile : tiles) kernel->forward({&tile, 1}, q, {k, v}, partial);
    kernel->finish(partial, lse);
  });
  kernel->row_dot(dout, out, delta);
  const double backward = median_seconds(device, [&] {
    for (const Tile& tile : tiles) kernel->backward({&tile, 1}, {q, dout, lse, delta}, {k, v}, {dq, dk, dv});
  });
  return {forward, backward};
}

// What a ring step costs beside its keys: the state of the rows is read and written once more per block.
void price_blocks(Device& device, const KernelMaker& maker) {
  for (const Index blocks : {2, 4}) {
    const Case c{8192 * blocks, 128, false};
    const auto [whole, whole_backward] = measure(device, maker, c);
    const auto [parts, parts_backward] = measure(device, maker, c, blocks);
    std::printf("%-12s %lld blocks of 8192 keys against one call: forward %+.1f %%, backward %+.1f %%\n",
                maker.name.data(), static_cast<long long>(blocks), 100 * (parts / whole - 1),
                100 * (parts_backward / whole_backward - 1));
  }
}

// What it costs to leave multiprocessors to NCCL.
void price_multiprocessors(Device& device) {
  const int all = cuda_gpus().front().multiprocessors;
  const Case c{16384, 128, false};
  for (const int left : {0, 4, 8}) {
    const auto [forward, backward] = measure(device, wgmma_on(all - left), c);
    std::printf("cuda-wgmma   on %d of %d multiprocessors: forward %.1f TFLOP/s, backward %.1f TFLOP/s\n", all - left,
                all, 1e-12 * operations(c) / forward, 2.5e-12 * operations(c) / backward);
  }
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
  const KernelMaker* best = nullptr;
  for (const KernelMaker& maker : kernels) {
    try {
      maker.make(problem_of(64), *device);
    } catch (const Error& refusal) {
      std::printf("%-12s not measured: %s\n", maker.name.data(), refusal.what());
      continue;
    }
    best = &maker;
    for (const Index channels : {64, 128, 256})
      for (const bool causal : {false, true})
        for (Index tokens = 2048; tokens <= (channels > 128 ? 8192 : 32768); tokens *= 2) {
          const auto [forward, backward] = measure(*device, maker, {tokens, channels, causal});
          const auto line = [&](const char* pass, double seconds, double work) {
            std::printf("%-12s %6lld tokens, %3lld channels, %-6s %-8s %8.3f ms %8.1f TFLOP/s\n", maker.name.data(),
                        static_cast<long long>(tokens), static_cast<long long>(channels), causal ? "causal" : "full",
                        pass, seconds * 1e3, work / seconds * 1e-12);
            file << maker.name << ',' << tokens << ',' << channels << ',' << (causal ? "causal" : "full") << ',' << pass
                 << ',' << seconds << ',' << work / seconds << '\n';
          };
          const double work = operations({tokens, channels, causal});
          line("forward", forward, work);
          line("backward", backward, 2.5 * work);
          if (forward + backward > 1) break;
        }
  }
  if (best != nullptr) price_blocks(*device, *best);
  if (best != nullptr && best->name == "cuda-wgmma") price_multiprocessors(*device);
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

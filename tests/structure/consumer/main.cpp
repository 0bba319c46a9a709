// Two tokens, one channel, causal: token 0 sees itself, token 1 sees both with equal scores.
#include <annulus/geometry/meet.hpp>
#include <annulus/geometry/partition.hpp>
#include <annulus/kernel/partial.hpp>
#include <annulus/kernel/reference.hpp>
#include <array>
#include <cmath>
#include <cstdio>

int main() {
  using namespace annulus;
  std::array<double, 2> q{0, 0}, k{1, 2}, v{3, 5}, lse{};
  const auto rows = [](auto& numbers) { return dense_rows(numbers.data(), DType::f64, 2, 1, 1); };
  const Mask mask = Mask::parse("causal", {.queries = 2, .keys = 2});
  const Partition whole = Partition::contiguous(2, 1);
  CpuDevice device;
  PartialArray partial(device, DType::f64, 2, 1, 1);
  make_reference_kernel({.channels = 1, .value_channels = 1, .type = DType::f64})
      ->forward(meet(whole.runs(0), whole.runs(0), mask), rows(q), {rows(k), rows(v)}, partial.view());
  finish(partial.view(), rows(lse));
  const double* out = partial.view().out.at<double>(0);
  std::printf("out = %g %g, lse = %g %g\n", out[0], out[1], lse[0], lse[1]);
  const bool right = out[0] == 3 && std::abs(out[1] - 4) < 1e-12 && std::abs(lse[1] - std::log(2.0)) < 1e-12;
  return right ? 0 : 1;
}

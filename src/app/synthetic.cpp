#include "app/synthetic.hpp"

#include <cmath>

#include "annulus/memory/device.hpp"

namespace annulus::app {
namespace {

// splitmix64's mixing: any change of the input changes half of the bits.
std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

// The sum of four uniform numbers of 16 bits, scaled to mean 0 and variance 1.
float about_normal(std::uint64_t bits) {
  const auto sum =
      static_cast<float>((bits & 0xffffU) + ((bits >> 16) & 0xffffU) + ((bits >> 32) & 0xffffU) + (bits >> 48));
  return (sum * 0x1p-16F - 2) * std::sqrt(3.0F);
}

}  // namespace

void fill_synthetic(RowSource::What tensor, std::span<const Run> runs, const Rows& rows) {
  CpuDevice cpu;
  const Array row(cpu, DType::f32, 1, rows.heads, rows.channels);
  Index at = 0;
  for (const Run& run : runs)
    for (Index i = 0; i < run.count; ++i, ++at) {
      const auto token = static_cast<std::uint64_t>(run.at(i));
      std::uint64_t state = mixed(token * 4 + static_cast<std::uint64_t>(tensor) + 0x9e3779b97f4a7c15U);
      for (float& x : row.elements<float>()) x = about_normal(mixed(state += 0x9e3779b97f4a7c15U));
      convert(row, rows.slice(at, at + 1));
    }
}

}  // namespace annulus::app

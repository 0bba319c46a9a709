#pragma once
#include <bit>

#include "kernel/cuda/body.hpp"

// Backward rounds P and dS to 16 bits. The numbers of f16 end at 65504 and at 6e-8, and P is about 1 / keys; so what is
// rounded are powers of two times P and dS, by which the sums are divided in f32 where they leave:
//
//   2^15 P <= 2^15         2^15 u dS <= 2^15         u = 2^-e,   2^e > max |dO_i| max |V_j| + max |delta_i| >= |dP - delta|
//
// with the largest of all rows of a call, which a kernel of its own finds first. bf16 has the range of f32 and needs none.

namespace annulus::cuda {

template <DType type>
inline constexpr bool has_small_range = type == DType::f16;
inline constexpr int weight_powers = 15;

/// Of the rows of a call that are finite. Bits of f32 numbers >= 0, which stand in the order of the numbers.
struct Largest {
  unsigned dout, v;  ///< squares of norms
  unsigned delta;
};

/// e + 126; within bounds that leave u, 1/u and u times the dP of rows that do not count numbers of f32.
ANNULUS_GPU unsigned exponent_of_slopes(const Largest& largest) {
  const float bound = std::sqrt(std::bit_cast<float>(largest.dout)) * std::sqrt(std::bit_cast<float>(largest.v)) +
                      std::bit_cast<float>(largest.delta);
  const unsigned exponent = std::bit_cast<unsigned>(bound) >> 23;
  return exponent < 64 ? 64 : exponent > 252 ? 252 : exponent;
}

/// u; 1 where nothing is scaled.
template <DType type>
ANNULUS_GPU float slope_unit(const Largest* largest) {
  if constexpr (!has_small_range<type>) {
    return 1;
  } else {
    return std::bit_cast<float>((253 - exponent_of_slopes(*largest)) << 23);
  }
}

/// What sums of P, and of dS, are multiplied by where they leave.
template <DType type>
ANNULUS_GPU float after_weights() {
  return has_small_range<type> ? 1.0F / (1 << weight_powers) : 1.0F;
}
template <DType type>
ANNULUS_GPU float after_slopes(const Largest* largest) {
  if constexpr (!has_small_range<type>) {
    return 1;
  } else {
    return after_weights<type>() * std::bit_cast<float>((exponent_of_slopes(*largest) + 1) << 23);
  }
}

/// Raises the largest square of a norm, and the largest |delta|, of the rows of a job; a warp per row. Rows whose lse is
/// -inf have seen nothing and may hold anything. A kernel for each launcher: were it one, of two libraries, it could be taken
/// from the one that has no code for this GPU.
template <class Launcher>
struct MeasureRows {
  static constexpr int threads = 128, shared_bytes = 0;
  Work work;
  Rows rows;                       ///< f16
  Rows lse, delta;                 ///< f32; absent: of no interest
  unsigned *norm, *largest_delta;  ///< to raise; the latter with delta only

  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Job job = work.jobs[t.job()];
    const int lane = t.index() % 32;
    const bool of_queries = !lse.absent();
    float norms = 0, deltas = 0;
    for (Index row = job.begin + t.index() / 32; row < job.end; row += threads / 32) {
      if (of_queries && *at<const float>(lse, row, t.head()) == nothing<float>) continue;
      float sum = 0;
      for (Index c = lane; c < rows.channels; c += 32) {
        const float x = from_f16(at<const std::uint16_t>(rows, row, t.head())[c]);
        sum += x * x;
      }
      for (int mask = 16; mask > 0; mask /= 2) sum += t.shuffle_xor(sum, mask);
      norms = raised(norms, sum);
      if (of_queries) deltas = raised(deltas, std::fabs(*at<const float>(delta, row, t.head())));
    }
    if (lane != 0) return;
    t.raise(norm, std::bit_cast<unsigned>(norms));
    if (of_queries) t.raise(largest_delta, std::bit_cast<unsigned>(deltas));
  }

 private:
  ANNULUS_GPU static float raised(float most, float x) { return x > most && x < -nothing<float> ? x : most; }
};

}  // namespace annulus::cuda

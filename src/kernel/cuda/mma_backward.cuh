#pragma once
#include "kernel/cuda/f16_range.hpp"
#include "kernel/cuda/mma_forward.cuh"

// Backward on tensor cores, without atomics: each block of threads owns its rows of the gradients and adds to them once,
// at its end. Both directions are one body, in which "own" rows meet blocks of "other" rows (columns):
//
//             own1, own2   other1, other2   of a row or column   gradients of the own rows
//   queries   Q, dO        K, V             row                  dQ += dS K
//   keys      K, V         Q, dO            column               dK += dS^T Q     dV += P^T dO
//
//   S = own1 other1^T    P = exp(c S - lse)    dP = own2 other2^T    dS = c P (dP - delta)    (c = scale)
//
// with P and dS transposed for keys, which then walk over all query heads of their group, so that nothing is exchanged
// between warps. Rows that saw nothing have lse = -inf; there P = 0. Of f16, P and dS are computed as powers of two times
// themselves (f16_range.hpp).

namespace annulus::cuda {

struct BackwardArguments {
  Work work;
  Source own1, own2, other1, other2;
  Source lse, delta;  ///< f32, of the queries
  Target gradient1, gradient2;
  int query_heads, group, phase;
  float scale;
  const Largest* largest = nullptr;  ///< f16: of the rows of the call
};

/// What of the gradients an instance computes: where registers do not hold both of a key's, two launches do.
enum class Gradient { first, second, both };

template <Side side_, Gradient gradient, int channels_, int value_channels_>
struct BackwardShape {
  static constexpr Side side = side_;
  static constexpr bool first = gradient != Gradient::second, second = gradient != Gradient::first;
  static constexpr int channels = channels_, value_channels = value_channels_;
  static constexpr int widest = channels > value_channels ? channels : value_channels;
  static constexpr int rows16 = widest <= (side == Side::queries ? 96 : 64) ? 2 : 1;
  static constexpr int rows = 16 * rows16 * warps;         ///< per job at most
  static constexpr int columns = widest <= 128 ? 32 : 16;  ///< per step
  // lse and delta lie beside the queries
  static constexpr int own_panels = rows * (channels + (first ? value_channels : 0)) * 2,
                       own_bytes = own_panels + (side == Side::queries ? rows * 8 : 0);
  static constexpr int stage_panels = columns * (channels + value_channels) * 2,
                       stage_bytes = stage_panels + (side == Side::queries ? 0 : columns * 8);
  static constexpr int shared_bytes = own_bytes + 2 * stage_bytes;
};

struct alignas(8) Statistics {
  float lse, delta;
};

/// From lse and delta to what P = 2^(score - lse) and slope_of take.
template <DType type>
__device__ __forceinline__ Statistics prepared(Statistics known, float unit) {
  if (known.lse == never) return {-never, has_small_range<type> ? 0 : known.delta};
  if constexpr (!has_small_range<type>) {
    return {known.lse * log2_e, known.delta};
  } else {
    return {fmaf(known.lse, log2_e, -weight_powers), known.delta * unit};
  }
}

/// dS of P, dP and a prepared delta.
template <DType type>
__device__ __forceinline__ float slope_of(float weight, float slope, float delta, float unit) {
  if constexpr (!has_small_range<type>) {
    return weight * (slope - delta);
  } else {
    return weight * fmaf(slope, unit, -delta);
  }
}

/// Starts to copy the statistics of queries [first, first + count) of one head to shared memory, `rows` places.
template <int rows>
__device__ __forceinline__ void load_statistics(std::uint32_t to, const BackwardArguments& a, Index first, int count,
                                                int head) {
#pragma unroll 1
  for (int n = static_cast<int>(threadIdx.x); n < 2 * rows; n += block_threads) {
    const Source& numbers = n % 2 == 0 ? a.lse : a.delta;
    const bool there = n / 2 < count;
    copy_async_number(to + 4 * static_cast<std::uint32_t>(n),
                      numbers.data + (first + (there ? n / 2 : 0)) * numbers.pitch + head * numbers.head_bytes, there);
  }
}

template <DType type>
__device__ __forceinline__ Statistics statistics_of(std::uint32_t at, int row, float unit) {
  return prepared<type>(load_shared<Statistics>(at + 8 * static_cast<std::uint32_t>(row)), unit);
}

/// Starts to copy one block of columns to shared memory: a panel of other1, one of other2, and for keys the statistics.
template <class Shape>
__device__ __forceinline__ void load_stage(std::uint32_t to, const BackwardArguments& a, const Columns& columns) {
  load_panel<Shape::channels, Shape::columns>(to, a.other1, columns.first, columns.count, columns.head);
  load_panel<Shape::value_channels, Shape::columns>(to + Shape::columns * Shape::channels * 2, a.other2, columns.first,
                                                    columns.count, columns.head);
  if constexpr (Shape::side == Side::keys)
    load_statistics<Shape::columns>(to + Shape::stage_panels, a, columns.first, columns.count, columns.head);
}

/// target += scale d, for the rows of this warp.
template <int rows16, int channels8>
__device__ __forceinline__ void add_to(const Target& target, const Job& job, int head, int row, int lane,
                                       const Fragments<rows16, channels8>& d, float scale) {
#pragma unroll
  for (int m = 0; m < rows16; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Index i = job.begin + row + row_in_warp(m, half, lane);
      if (i >= job.end) continue;
#pragma unroll
      for (int n = 0; n < channels8; ++n)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const int c = column_of(n, e, lane);
          if (c < target.channels) row_of(target, i, head)[c] += scale * d[m][n][e];
        }
    }
}

template <DType type, class Shape>
struct MmaBackward {
  static constexpr int threads = block_threads, shared_bytes = Shape::shared_bytes;
  BackwardArguments a;
  template <class Thread>
  __device__ __forceinline__ void operator()(Thread& t) const;
};

/// One block of threads per job and own head.
template <DType type, class Shape>
template <class Thread>
__device__ __forceinline__ void MmaBackward<type, Shape>::operator()(Thread& t) const {
  constexpr int rows16 = Shape::rows16, columns8 = Shape::columns / 8, channels = Shape::channels,
                value_channels = Shape::value_channels;
  constexpr bool of_queries = Shape::side == Side::queries;
  const std::uint32_t own1_at = shared_memory(), own2_at = own1_at + Shape::rows * channels * 2,
                      stages_at = own1_at + Shape::own_bytes;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, row = thread / 32 * 16 * rows16;
  const Job& job = a.work.jobs[t.job()];
  const int head = static_cast<int>(t.head()), rows = static_cast<int>(job.end - job.begin);

  // the heads of the other side that this one meets
  int other_head = (head + a.phase) / a.group, other_end = other_head + 1;
  if constexpr (!of_queries) {
    other_head = head * a.group - a.phase;
    other_end = other_head + a.group < a.query_heads ? other_head + a.group : a.query_heads;
    other_head = other_head > 0 ? other_head : 0;
    if (other_head >= other_end) return;
  }
  Walk<Shape::side, Shape::columns> walk(a.work, job, other_head, other_end);
  Columns now;
  if (!walk.next(now)) return;
  load_panel<channels, Shape::rows>(own1_at, a.own1, job.begin, rows, head);
  if constexpr (Shape::first) load_panel<value_channels, Shape::rows>(own2_at, a.own2, job.begin, rows, head);
  if constexpr (of_queries) load_statistics<Shape::rows>(own1_at + Shape::own_panels, a, job.begin, rows, head);
  load_stage<Shape>(stages_at, a, now);
  copy_async_commit();

  Fragments<rows16, Shape::first ? channels / 8 : 1> d1;
  Fragments<rows16, Shape::second ? value_channels / 8 : 1> d2;
  clear(d1);
  clear(d2);
  const LeftOperand<channels> own1(own1_at, row, lane);
  const LeftOperand<value_channels> own2(own2_at, row, lane);
  const auto get_own1 = [&](std::uint32_t(&left)[4], int m, int k) { own1.load(left, m, k); };
  const auto get_own2 = [&](std::uint32_t(&left)[4], int m, int k) { own2.load(left, m, k); };
  const float scale_log2 = a.scale * log2_e, unit = slope_unit<type>(a.largest);

  for (std::uint32_t turn = 0;; turn ^= 1) {
    const std::uint32_t first_at = stages_at + turn * Shape::stage_bytes,
                        second_at = first_at + Shape::columns * channels * 2;
    copy_async_wait<0>();
    __syncthreads();  // this stage is here, and nobody reads the other any more
    Columns following;
    const bool more = walk.next(following);
    if (more) load_stage<Shape>(stages_at + (turn ^ 1) * Shape::stage_bytes, a, following);
    copy_async_commit();

    Fragments<rows16, columns8> p, ds;
    scores<type, channels>(p, get_own1, first_at, lane);
    if constexpr (Shape::first) scores<type, value_channels>(ds, get_own2, second_at, lane);
    if (!now.full(rows, Shape::columns)) hide(p, now, row, lane);
    Statistics of_row[rows16][2];
    if constexpr (of_queries) {
#pragma unroll
      for (int m = 0; m < rows16; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          of_row[m][half] = statistics_of<type>(own1_at + Shape::own_panels, row + row_in_warp(m, half, lane), unit);
    }
#pragma unroll
    for (int n = 0; n < columns8; ++n)
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        Statistics of_column;
        if constexpr (!of_queries)
          of_column = statistics_of<type>(first_at + Shape::stage_panels, column_of(n, odd, lane), unit);
#pragma unroll
        for (int m = 0; m < rows16; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const Statistics& known = of_queries ? of_row[m][half] : of_column;
            float& weight = p[m][n][2 * half + odd];
            weight = exp2_fast(fmaf(weight, scale_log2, -known.lse));
            if constexpr (Shape::first) {
              float& slope = ds[m][n][2 * half + odd];
              slope = slope_of<type>(weight, slope, known.delta, unit);
            }
          }
      }
    if constexpr (Shape::second) accumulate<type, value_channels>(d2, p, second_at, lane);
    if constexpr (Shape::first) accumulate<type, channels>(d1, ds, first_at, lane);
    if (!more) break;
    now = following;
  }
  if constexpr (Shape::first) add_to(a.gradient1, job, head, row, lane, d1, a.scale * after_slopes<type>(a.largest));
  if constexpr (Shape::second) add_to(a.gradient2, job, head, row, lane, d2, after_weights<type>());
}

}  // namespace annulus::cuda

#pragma once
#include "kernel/cuda/mma_panel.cuh"

// Forward on tensor cores, for sm_80 and later; one block of threads per job and query head. With S = Q K^T of the job's
// rows and one block of keys, c = scale, and (out, top, sum) of every row in registers from the first tile to the last, joined with the caller's at the end:
//   top' = max(top, c max_j S_j)        keep = exp(top - top')        P = exp(c S - top')
//   sum' = keep sum + sum_j P_j         out' = keep out + P V
// After Dao, arXiv:2307.08691. Exponentials are powers of two against base = top log2(e), which is rounded the same way
// whenever the same top comes back in a later call, so that out and sum agree. Rows that saw nothing yet have
// top = -inf; while they do, their base is 0.
//
//   load K | load V, S = Q K^T | load next K, softmax, O += P V | ...      one barrier before each "|"

namespace annulus::cuda {

struct ForwardArguments {
  Work work;
  Source q, k, v;
  Target out, top, sum;
  int group, phase;
  float scale;  ///< > 0
};

constexpr float log2_e = 1.44269504088896340736F;
constexpr float never = nothing<float>;

/// Sizes of one instance. Registers decide: of the 255 that a thread has, out takes rows16 * value_channels / 2.
template <int channels_, int value_channels_>
struct ForwardShape {
  static constexpr int channels = channels_, value_channels = value_channels_;
  static constexpr int widest = channels > value_channels ? channels : value_channels;
  static constexpr int rows16 = widest <= 96 ? 2 : 1;   ///< per warp: each fragment of K and V is used so often
  static constexpr int rows = 16 * rows16 * warps;      ///< per job at most
  static constexpr int keys = widest <= 192 ? 64 : 32;  ///< per step
  static constexpr bool keep_q = channels <= 64 || (rows16 == 1 && channels <= 192);  ///< Q stays in registers
  static constexpr int q_bytes = rows * channels * 2, k_bytes = keys * channels * 2,
                       v_bytes = keys * value_channels * 2, shared_bytes = q_bytes + k_bytes + v_bytes;
};

template <int rows16>
struct RowState {
  float top[rows16][2], sum[rows16][2];  // of a sum each of a row's four lanes holds a part
};

__device__ __forceinline__ float larger_of_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0U, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0U, x, 2));
}
__device__ __forceinline__ float sum_of_quad(float x) {
  x += __shfl_xor_sync(~0U, x, 1);
  return x + __shfl_xor_sync(~0U, x, 2);
}

/// A top in powers of two. Of two that are equal the difference must be 0, so that what is kept from step to step stays as
/// it is: no compiler may fuse one of the products with it.
__device__ __forceinline__ float power_of_top(float top) { return product(top, log2_e); }
/// What exponents are taken against, in powers of two; rows that have seen nothing need one too.
__device__ __forceinline__ float base_of_top(float top) { return top == never ? 0.0F : power_of_top(top); }

/// Scores become probabilities against the new top; the state and out follow.
template <int rows16, int keys8, int channels8>
__device__ __forceinline__ void softmax(Fragments<rows16, keys8>& s, RowState<rows16>& state,
                                        Fragments<rows16, channels8>& out, float scale) {
  const float scale_log2 = scale * log2_e;
#pragma unroll
  for (int m = 0; m < rows16; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = never;
#pragma unroll
      for (int n = 0; n < keys8; ++n) highest = fmaxf(highest, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
      const float before = state.top[m][half], top = fmaxf(before, larger_of_quad(highest) * scale);
      const float base = base_of_top(top), keep = exp2_fast(power_of_top(before) - base);
      float sum = 0;
#pragma unroll
      for (int n = 0; n < keys8; ++n)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[m][n][e] = exp2_fast(fmaf(s[m][n][e], scale_log2, -base));
          sum += s[m][n][e];
        }
      state.sum[m][half] = keep * state.sum[m][half] + sum;
      state.top[m][half] = top;
#pragma unroll
      for (int n = 0; n < channels8; ++n) {
        out[m][n][2 * half] *= keep;
        out[m][n][2 * half + 1] *= keep;
      }
    }
}

/// Sets to -inf what the band or the end of the columns hides.
template <int rows16, int columns8>
__device__ __forceinline__ void hide(Fragments<rows16, columns8>& s, const Columns& columns, int row, int lane) {
#pragma unroll
  for (int m = 0; m < rows16; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // the columns that this row sees, counted from the thread's first
      const int r = row + row_in_warp(m, half, lane), end = min(columns.hi + r, columns.count - 1);
      const int first = columns.lo + r - column_of(0, 0, lane), last = end - column_of(0, 0, lane);
#pragma unroll
      for (int n = 0; n < columns8; ++n)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd)
          if (8 * n + odd < first || 8 * n + odd > last) s[m][n][2 * half + odd] = never;
    }
}

/// Joins what this launch has found with what the rows hold from earlier ones. Nothing is read of out where nothing had
/// been seen.
template <int rows16, int channels8>
__device__ __forceinline__ void join(const ForwardArguments& a, const Job& job, int head, int row, int lane,
                                     const RowState<rows16>& state, const Fragments<rows16, channels8>& out) {
  RowState<rows16> before;
#pragma unroll
  for (int m = 0; m < rows16; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Index i = job.begin + row + row_in_warp(m, half, lane);
      const float top = i < job.end ? *row_of(a.top, i, head) : never;
      before.top[m][half] = top;
      before.sum[m][half] = top == never ? 0.0F : *row_of(a.sum, i, head);
    }
  __syncwarp();  // four lanes read what one will write
#pragma unroll
  for (int m = 0; m < rows16; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Index i = job.begin + row + row_in_warp(m, half, lane);
      const float found = sum_of_quad(state.sum[m][half]);
      if (i >= job.end) continue;
      const bool fresh = before.top[m][half] == never;
      const float top = fmaxf(before.top[m][half], state.top[m][half]), base = base_of_top(top);
      const float keep_before = exp2_fast(power_of_top(before.top[m][half]) - base),
                  keep = exp2_fast(power_of_top(state.top[m][half]) - base);
      const float sum = keep * found + keep_before * before.sum[m][half];
      float* const to = row_of(a.out, i, head);
#pragma unroll
      for (int n = 0; n < channels8; ++n)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const int c = column_of(n, e, lane);
          if (c < a.out.channels) to[c] = keep * out[m][n][e] + (fresh ? 0.0F : keep_before * to[c]);
        }
      if (lane % 4 == 0) {
        *row_of(a.sum, i, head) = sum;
        *row_of(a.top, i, head) = sum == sum ? top : sum;  // not a number stays so
      }
    }
}

template <DType type, class Shape>
struct MmaForward {
  static constexpr int threads = block_threads, shared_bytes = Shape::shared_bytes;
  ForwardArguments a;
  template <class Thread>
  __device__ __forceinline__ void operator()(Thread& t) const;
};

template <DType type, class Shape>
template <class Thread>
__device__ __forceinline__ void MmaForward<type, Shape>::operator()(Thread& t) const {
  constexpr int rows16 = Shape::rows16, keys8 = Shape::keys / 8, channels = Shape::channels,
                value_channels = Shape::value_channels;
  const std::uint32_t q_at = shared_memory(), k_at = q_at + Shape::q_bytes, v_at = k_at + Shape::k_bytes;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, row = thread / 32 * 16 * rows16;
  const Job& job = a.work.jobs[t.job()];
  const int head = static_cast<int>(t.head()), kv_head = (head + a.phase) / a.group;
  const int rows = static_cast<int>(job.end - job.begin);

  Walk<Side::queries, Shape::keys> walk(a.work, job, head, head + 1);
  Columns now;
  if (!walk.next(now)) return;
  load_panel<channels, Shape::rows>(q_at, a.q, job.begin, rows, head);
  copy_async_commit();
  load_panel<channels, Shape::keys>(k_at, a.k, now.first, now.count, kv_head);
  copy_async_commit();

  RowState<rows16> state;
  Fragments<rows16, value_channels / 8> out;
  clear(out);
#pragma unroll
  for (int m = 0; m < rows16; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.top[m][half] = never;
      state.sum[m][half] = 0;
    }
  const LeftOperand<channels> q(q_at, row, lane);
  std::uint32_t kept[Shape::keep_q ? rows16 : 1][Shape::keep_q ? channels / 16 : 1][4];
  if constexpr (Shape::keep_q) {
    copy_async_wait<1>();
    __syncthreads();
#pragma unroll
    for (int m = 0; m < rows16; ++m)
#pragma unroll
      for (int k = 0; k < channels / 16; ++k) q.load(kept[m][k], m, k);
  }
  const auto get_q = [&](std::uint32_t(&left)[4], int m, int k) {
    if constexpr (Shape::keep_q) {
#pragma unroll
      for (int e = 0; e < 4; ++e) left[e] = kept[m][k][e];
    } else {
      q.load(left, m, k);
    }
  };

  for (bool more = true; more;) {
    copy_async_wait<0>();
    __syncthreads();  // K is here, and nobody reads V any more
    load_panel<value_channels, Shape::keys>(v_at, a.v, now.first, now.count, kv_head);
    copy_async_commit();
    Fragments<rows16, keys8> s;
    scores<type, channels>(s, get_q, k_at, lane);
    if (!now.full(rows, Shape::keys)) hide(s, now, row, lane);
    copy_async_wait<0>();
    __syncthreads();  // V is here, and nobody reads K any more
    more = walk.next(now);
    if (more) load_panel<channels, Shape::keys>(k_at, a.k, now.first, now.count, kv_head);
    copy_async_commit();
    softmax(s, state, out, a.scale);
    accumulate<type, value_channels>(out, s, v_at, lane);
  }
  join(a, job, head, row, lane, state, out);
}

}  // namespace annulus::cuda

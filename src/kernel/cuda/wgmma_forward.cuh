#pragma once
#include "kernel/cuda/wgmma_work.cuh"

// Forward on Hopper: the mathematics of mma_forward.cuh with asynchronous copies and products. While a warpgroup
// exponentiates, its own P V of the block before is computed, and products of the others:
//
//   S0 | softmax 0 | S1, P0 V0 | softmax 1 | S2, P1 V1 | softmax 2 | ... | Pn Vn
//                         \------- runs on
//
// After Shah et al., arXiv:2407.08608.
//
// Not run on a GPU yet: emulated only.

namespace annulus::cuda {

template <int channels_, int value_channels_>
struct WgmmaForwardShape {
  static constexpr int channels = channels_, value_channels = value_channels_;
  static constexpr int consumers = 2, rows = consumers * rows_per_warpgroup;
  // half as many keys where two stages of 128 would not fit
  static constexpr int keys = (channels > 128 || value_channels > 128) ? 64 : 128, stages = 2;
  static constexpr int threads = (consumers + 1) * warpgroup_threads;
  // 384 threads start with 168 registers each; out, S and P take 160 at 128 channels, 176 at 256
  static constexpr int registers_to_copy = 24, registers_to_compute = 240;
  static constexpr int q_bytes = panels_bytes(rows_per_warpgroup, channels), k_bytes = panels_bytes(keys, channels),
                       v_bytes = panels_bytes(keys, value_channels);
  static constexpr int k_at = consumers * q_bytes, v_at = k_at + stages * k_bytes,
                       barriers_at = v_at + stages * v_bytes, shared_bytes = barriers_at + 8 * (2 + 4 * stages);
};

template <DType type, class Shape>
struct WgmmaForward {
  static constexpr int threads = Shape::threads, shared_bytes = Shape::shared_bytes;
  TensorMap q, k, v;  ///< boxes of 64, Shape::keys and Shape::keys rows
  ForwardArguments a;
  Items items;
  template <class Thread>
  __device__ __forceinline__ void operator()(Thread& t) const;

 private:
  /// Addresses in shared memory.
  struct Places {
    std::uint32_t base;
    __device__ __forceinline__ std::uint32_t q(int consumer) const {
      return base + static_cast<std::uint32_t>(consumer * Shape::q_bytes);
    }
    __device__ __forceinline__ std::uint32_t k(std::uint32_t stage) const {
      return base + Shape::k_at + stage * Shape::k_bytes;
    }
    __device__ __forceinline__ std::uint32_t v(std::uint32_t stage) const {
      return base + Shape::v_at + stage * Shape::v_bytes;
    }
    __device__ __forceinline__ std::uint32_t barrier(std::uint32_t n) const {
      return base + Shape::barriers_at + 8 * n;
    }
    __device__ __forceinline__ std::uint32_t q_full() const { return barrier(0); }
    __device__ __forceinline__ std::uint32_t q_empty() const { return barrier(1); }
    __device__ __forceinline__ std::uint32_t k_full(std::uint32_t stage) const { return barrier(2 + 4 * stage); }
    __device__ __forceinline__ std::uint32_t k_empty(std::uint32_t stage) const { return barrier(3 + 4 * stage); }
    __device__ __forceinline__ std::uint32_t v_full(std::uint32_t stage) const { return barrier(4 + 4 * stage); }
    __device__ __forceinline__ std::uint32_t v_empty(std::uint32_t stage) const { return barrier(5 + 4 * stage); }
  };
  __device__ __forceinline__ void copy(const Places& at, int block) const;
  __device__ __forceinline__ void compute(const Places& at, int block, int consumer) const;
};

template <DType type, class Shape>
template <class Thread>
__device__ __forceinline__ void WgmmaForward<type, Shape>::operator()(Thread& t) const {
  const Places at{shared_memory()};
  const int thread = static_cast<int>(threadIdx.x), warpgroup = thread / warpgroup_threads,
            block = static_cast<int>(t.job());
  if (thread == 0) {
    constexpr int warps_of_consumers = 4 * Shape::consumers;
    memory_barrier_init(at.q_full(), 1);
    memory_barrier_init(at.q_empty(), warps_of_consumers);
    for (std::uint32_t s = 0; s < Shape::stages; ++s) {
      memory_barrier_init(at.k_full(s), 1);
      memory_barrier_init(at.k_empty(s), warps_of_consumers);
      memory_barrier_init(at.v_full(s), 1);
      memory_barrier_init(at.v_empty(s), warps_of_consumers);
    }
    memory_barriers_ready();
  }
  __syncthreads();
  if (warpgroup == 0) {
    give_registers<Shape::registers_to_copy>();
    if (thread == 0) copy(at, block);
  } else {
    take_registers<Shape::registers_to_compute>();
    compute(at, block, warpgroup - 1);
  }
}

template <DType type, class Shape>
__device__ __forceinline__ void WgmmaForward<type, Shape>::copy(const Places& at, int block) const {
  Turn<1> own;
  Turn<Shape::stages> turn;
  for (int item = block; item < items.jobs * items.heads; item += items.blocks) {
    const Job& job = a.work.jobs[item / items.heads];
    const int head = item % items.heads, kv_head = (head + a.phase) / a.group;
    Walk<Side::queries, Shape::keys> walk(a.work, job, head, head + 1);
    Columns now;
    if (!walk.next(now)) continue;
    memory_barrier_wait(at.q_empty(), own.empty());
    memory_barrier_expect(at.q_full(), Shape::consumers * Shape::q_bytes);
    for (int c = 0; c < Shape::consumers; ++c)
      copy_panels<rows_per_warpgroup, Shape::channels>(at.q(c), q, head, job.begin + c * rows_per_warpgroup,
                                                       at.q_full());
    own.next();
    do {
      const std::uint32_t s = turn.stage();
      memory_barrier_wait(at.k_empty(s), turn.empty());
      memory_barrier_expect(at.k_full(s), Shape::k_bytes);
      copy_panels<Shape::keys, Shape::channels>(at.k(s), k, kv_head, now.first, at.k_full(s));
      memory_barrier_wait(at.v_empty(s), turn.empty());
      memory_barrier_expect(at.v_full(s), Shape::v_bytes);
      copy_panels<Shape::keys, Shape::value_channels>(at.v(s), v, kv_head, now.first, at.v_full(s));
      turn.next();
    } while (walk.next(now));
  }
}

template <DType type, class Shape>
__device__ __forceinline__ void WgmmaForward<type, Shape>::compute(const Places& at, int block, int consumer) const {
  const int thread = static_cast<int>(threadIdx.x) % warpgroup_threads, lane = thread % 32,
            row = consumer * rows_per_warpgroup + thread / 32 * 16;
  Turn<1> own;
  Turn<Shape::stages> k_turn, v_turn;
  RowState<1> state;
  Fragments<1, Shape::keys / 8> scores;
  Fragments<1, Shape::value_channels / 8> out;
  std::uint32_t left[Shape::keys / 16][4];

  const auto start_k = [&] {
    memory_barrier_wait(at.k_full(k_turn.stage()), k_turn.full());
    settle(scores);
    warpgroup_fence();
    start_scores<type, Shape::channels>(scores, at.q(consumer), at.k(k_turn.stage()));
    warpgroup_commit();
  };
  const auto end_k = [&] {
    settle(scores);
    if (lane == 0) memory_barrier_arrive(at.k_empty(k_turn.stage()));
    k_turn.next();
  };
  // `there`: rows of V that are of the tile
  const auto start_v = [&](int there) {
    const std::uint32_t v_at = at.v(v_turn.stage());
    memory_barrier_wait(at.v_full(v_turn.stage()), v_turn.full());
    if (there < Shape::keys) {
      clear_rows<Shape::keys, Shape::value_channels, Shape::consumers>(v_at, there,
                                                                       consumer * warpgroup_threads + thread);
      cleared<Shape::consumers>();
    }
    settle(left);
    settle(out);
    warpgroup_fence();
    start_accumulate<type>(out, left, v_at);
    warpgroup_commit();
  };
  const auto end_v = [&] {
    settle(out);
    if (lane == 0) memory_barrier_arrive(at.v_empty(v_turn.stage()));
    v_turn.next();
  };

  for (int item = block; item < items.jobs * items.heads; item += items.blocks) {
    const Job& job = a.work.jobs[item / items.heads];
    const int head = item % items.heads, rows = static_cast<int>(job.end - job.begin);
    Walk<Side::queries, Shape::keys> walk(a.work, job, head, head + 1);
    Columns now;
    if (!walk.next(now)) continue;
    clear(out);
    state = {{{never, never}}, {{0, 0}}};
    memory_barrier_wait(at.q_full(), own.full());
    start_k();
    warpgroup_wait<0>();
    end_k();
    if (!now.full(rows, Shape::keys)) hide(scores, now, row, lane);
    softmax(scores, state, out, a.scale);
    round_to<type>(left, scores);
    int there = now.there;
    while (walk.next(now)) {
      start_k();
      start_v(there);
      warpgroup_wait<1>();
      end_k();
      if (!now.full(rows, Shape::keys)) hide(scores, now, row, lane);
      Fragments<1, 1> keep = {{{1, 1, 1, 1}}};  // what softmax does to out, which is still being summed into
      softmax(scores, state, keep, a.scale);
      warpgroup_wait<0>();
      end_v();
#pragma unroll
      for (int n = 0; n < Shape::value_channels / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) out[0][n][e] *= keep[0][0][e];
      round_to<type>(left, scores);
      there = now.there;
    }
    if (lane == 0) memory_barrier_arrive(at.q_empty());
    own.next();
    start_v(there);
    warpgroup_wait<0>();
    end_v();
    join(a, job, head, row, lane, state, out);
  }
}

}  // namespace annulus::cuda

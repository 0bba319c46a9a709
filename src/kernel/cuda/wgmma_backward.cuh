#pragma once
#include "kernel/cuda/mma_backward.cuh"
#include "kernel/cuda/wgmma_work.cuh"

// Backward on Hopper: the mathematics of mma_backward.cuh, both directions in one body, with asynchronous copies and
// products. P and dS go from accumulators to left operands without leaving registers. Registers are scarce, so one
// warp of the warpgroup that copies walks for those that compute, and leaves in shared memory what they need to know of
// the columns: a Step, and for keys the statistics of every column.
//
// Not run on a GPU yet: emulated only.

namespace annulus::cuda {

/// The columns in a stage.
struct alignas(16) Step {
  int count, lo, hi, there;  ///< as in Columns
  int item;                  ///< -1: there are no more
  int last;                  ///< 1: of the item
  int unused[2];
};

template <Side side_, int channels_, int value_channels_>
struct WgmmaBackwardShape {
  static constexpr Side side = side_;
  static constexpr int channels = channels_, value_channels = value_channels_;
  static constexpr int consumers = 2, rows = consumers * rows_per_warpgroup;
  static constexpr int columns = 64, stages = 2;
  static constexpr int threads = (consumers + 1) * warpgroup_threads;
  // 384 threads start with 168 registers each; dK, dV, S and dP take 192 at 128 channels, and with fewer than 48 the
  // warp that walks would spill
  static constexpr int registers_to_copy = 56, registers_to_compute = 224;
  static constexpr int own1_bytes = panels_bytes(rows_per_warpgroup, channels),
                       own2_bytes = panels_bytes(rows_per_warpgroup, value_channels);
  static constexpr int other1_bytes = panels_bytes(columns, channels),
                       other2_bytes = panels_bytes(columns, value_channels);
  static constexpr int own2_at = consumers * own1_bytes, other1_at = own2_at + consumers * own2_bytes,
                       other2_at = other1_at + stages * other1_bytes, statistics_at = other2_at + stages * other2_bytes,
                       steps_at = statistics_at + stages * columns * 8,
                       barriers_at = steps_at + stages * static_cast<int>(sizeof(Step)),
                       shared_bytes = barriers_at + 8 * (2 + 2 * stages);
};

template <DType type, class Shape>
struct WgmmaBackward {
  static constexpr int threads = Shape::threads, shared_bytes = Shape::shared_bytes;
  static constexpr bool of_queries = Shape::side == Side::queries;
  TensorMap own1, own2, other1, other2;  ///< boxes of 64 rows
  BackwardArguments a;
  Items items;
  template <class Thread>
  __device__ __forceinline__ void operator()(Thread& t) const;

 private:
  using OtherWalk = Walk<Shape::side, Shape::columns>;

  /// Addresses in shared memory.
  struct Places {
    std::uint32_t base;
    __device__ __forceinline__ std::uint32_t own1(int consumer) const {
      return base + static_cast<std::uint32_t>(consumer * Shape::own1_bytes);
    }
    __device__ __forceinline__ std::uint32_t own2(int consumer) const {
      return base + static_cast<std::uint32_t>(Shape::own2_at + consumer * Shape::own2_bytes);
    }
    __device__ __forceinline__ std::uint32_t other1(std::uint32_t stage) const {
      return base + Shape::other1_at + stage * Shape::other1_bytes;
    }
    __device__ __forceinline__ std::uint32_t other2(std::uint32_t stage) const {
      return base + Shape::other2_at + stage * Shape::other2_bytes;
    }
    __device__ __forceinline__ std::uint32_t statistics(std::uint32_t stage, int column) const {
      return base + Shape::statistics_at + (stage * Shape::columns + static_cast<std::uint32_t>(column)) * 8;
    }
    __device__ __forceinline__ std::uint32_t step(std::uint32_t stage) const {
      return base + Shape::steps_at + stage * static_cast<std::uint32_t>(sizeof(Step));
    }
    __device__ __forceinline__ std::uint32_t barrier(std::uint32_t n) const {
      return base + Shape::barriers_at + 8 * n;
    }
    __device__ __forceinline__ std::uint32_t own_full() const { return barrier(0); }
    __device__ __forceinline__ std::uint32_t own_empty() const { return barrier(1); }
    __device__ __forceinline__ std::uint32_t full(std::uint32_t stage) const { return barrier(2 + 2 * stage); }
    __device__ __forceinline__ std::uint32_t empty(std::uint32_t stage) const { return barrier(3 + 2 * stage); }
  };

  /// The columns that the rows of a job meet: of one kv head, or of all query heads of a group.
  __device__ __forceinline__ OtherWalk walk(const Job& job, int head) const {
    if constexpr (of_queries) {
      const int other = (head + a.phase) / a.group;
      return OtherWalk(a.work, job, other, other + 1);
    } else {
      const int first = head * a.group - a.phase, last = first + a.group;
      return OtherWalk(a.work, job, first > 0 ? first : 0, last < a.query_heads ? last : a.query_heads);
    }
  }
  __device__ __forceinline__ static Statistics statistics(const Places& at, std::uint32_t stage, int column) {
    return load_shared<Statistics>(at.statistics(stage, column));
  }
  __device__ __forceinline__ void copy(const Places& at, int block) const;
  __device__ __forceinline__ void describe(const Places& at, int block, int lane) const;
  __device__ __forceinline__ void compute(const Places& at, int consumer) const;
};

template <DType type, class Shape>
template <class Thread>
__device__ __forceinline__ void WgmmaBackward<type, Shape>::operator()(Thread& t) const {
  const Places at{shared_memory()};
  const int thread = static_cast<int>(threadIdx.x), warpgroup = thread / warpgroup_threads,
            block = static_cast<int>(t.job());
  if (thread == 0) {
    constexpr int warps_of_consumers = 4 * Shape::consumers;
    memory_barrier_init(at.own_full(), 1);
    memory_barrier_init(at.own_empty(), warps_of_consumers);
    for (std::uint32_t s = 0; s < Shape::stages; ++s) {
      memory_barrier_init(at.full(s), 1 + 32);
      memory_barrier_init(at.empty(s), warps_of_consumers);
    }
    memory_barriers_ready();
  }
  __syncthreads();
  if (warpgroup == 0) {
    give_registers<Shape::registers_to_copy>();
    if (thread == 0) copy(at, block);
    if (thread / 32 == 1) describe(at, block, thread % 32);
  } else {
    take_registers<Shape::registers_to_compute>();
    compute(at, warpgroup - 1);
  }
}

template <DType type, class Shape>
__device__ __forceinline__ void WgmmaBackward<type, Shape>::copy(const Places& at, int block) const {
  Turn<1> own;
  Turn<Shape::stages> turn;
  for (int item = block; item < items.jobs * items.heads; item += items.blocks) {
    const Job& job = a.work.jobs[item / items.heads];
    const int head = item % items.heads;
    OtherWalk others = walk(job, head);
    Columns now;
    if (!others.next(now)) continue;
    memory_barrier_wait(at.own_empty(), own.empty());
    memory_barrier_expect(at.own_full(), Shape::consumers * (Shape::own1_bytes + Shape::own2_bytes));
    for (int c = 0; c < Shape::consumers; ++c) {
      const Index row = job.begin + c * rows_per_warpgroup;
      copy_panels<rows_per_warpgroup, Shape::channels>(at.own1(c), own1, head, row, at.own_full());
      copy_panels<rows_per_warpgroup, Shape::value_channels>(at.own2(c), own2, head, row, at.own_full());
    }
    own.next();
    do {
      const std::uint32_t s = turn.stage();
      memory_barrier_wait(at.empty(s), turn.empty());
      memory_barrier_expect(at.full(s), Shape::other1_bytes + Shape::other2_bytes);
      copy_panels<Shape::columns, Shape::channels>(at.other1(s), other1, now.head, now.first, at.full(s));
      copy_panels<Shape::columns, Shape::value_channels>(at.other2(s), other2, now.head, now.first, at.full(s));
      turn.next();
    } while (others.next(now));
  }
  memory_barrier_wait(at.empty(turn.stage()), turn.empty());
  memory_barrier_expect(at.full(turn.stage()), 0);  // for the step that says so
}

template <DType type, class Shape>
__device__ __forceinline__ void WgmmaBackward<type, Shape>::describe(const Places& at, int block, int lane) const {
  const float unit = slope_unit<type>(a.largest);
  Turn<Shape::stages> turn;
  for (int item = block; item < items.jobs * items.heads; item += items.blocks) {
    OtherWalk others = walk(a.work.jobs[item / items.heads], item % items.heads);
    Columns now, following;
    for (bool more = others.next(now); more; now = following) {
      more = others.next(following);
      const std::uint32_t s = turn.stage();
      memory_barrier_wait(at.empty(s), turn.empty());
      if (lane == 0) store_shared(at.step(s), Step{now.count, now.lo, now.hi, now.there, item, more ? 0 : 1, {}});
      if constexpr (!of_queries)
        for (int column = lane; column < Shape::columns; column += 32) {
          Statistics known{-never, 0};
          if (column < now.count)
            known = prepared<type>(
                {number_of(a.lse, now.first + column, now.head), number_of(a.delta, now.first + column, now.head)},
                unit);
          store_shared(at.statistics(s, column), known);
        }
      memory_barrier_arrive(at.full(s));
      turn.next();
    }
  }
  memory_barrier_wait(at.empty(turn.stage()), turn.empty());
  if (lane == 0) store_shared(at.step(turn.stage()), Step{0, 0, 0, 0, -1, 1, {}});
  memory_barrier_arrive(at.full(turn.stage()));
}

template <DType type, class Shape>
__device__ __forceinline__ void WgmmaBackward<type, Shape>::compute(const Places& at, int consumer) const {
  const int thread = static_cast<int>(threadIdx.x) % warpgroup_threads, lane = thread % 32,
            first_row = consumer * rows_per_warpgroup, row = first_row + thread / 32 * 16;
  const float scale_log2 = a.scale * log2_e, unit = slope_unit<type>(a.largest);
  Turn<1> own;
  Turn<Shape::stages> turn;
  while (true) {
    memory_barrier_wait(at.full(turn.stage()), turn.full());
    const int item = load_shared<Step>(at.step(turn.stage())).item;
    if (item < 0) break;
    const Job& job = a.work.jobs[item / items.heads];
    const int head = item % items.heads, rows = static_cast<int>(job.end - job.begin);
    Statistics of_row[2] = {{-never, 0}, {-never, 0}};
    if constexpr (of_queries) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Index i = job.begin + row + row_in_warp(0, half, lane);
        if (i < job.end) of_row[half] = prepared<type>({number_of(a.lse, i, head), number_of(a.delta, i, head)}, unit);
      }
    }
    Fragments<1, Shape::channels / 8> d1;
    Fragments<1, of_queries ? 1 : Shape::value_channels / 8> d2;
    clear(d1);
    clear(d2);
    memory_barrier_wait(at.own_full(), own.full());
    for (bool last = false; !last; turn.next()) {
      const std::uint32_t s = turn.stage();
      memory_barrier_wait(at.full(s), turn.full());
      const Step step = load_shared<Step>(at.step(s));
      const Columns now{0, step.count, step.lo, step.hi, 0, step.there};
      last = step.last != 0;
      if (now.there < Shape::columns) {
        const int one = consumer * warpgroup_threads + thread;
        clear_rows<Shape::columns, Shape::channels, Shape::consumers>(at.other1(s), now.there, one);
        clear_rows<Shape::columns, Shape::value_channels, Shape::consumers>(at.other2(s), now.there, one);
        cleared<Shape::consumers>();
      }
      if (first_row < rows && now.any(first_row, rows_per_warpgroup)) {
        Fragments<1, Shape::columns / 8> p, ds;
        warpgroup_fence();
        start_scores<type, Shape::channels>(p, at.own1(consumer), at.other1(s));
        warpgroup_commit();
        start_scores<type, Shape::value_channels>(ds, at.own2(consumer), at.other2(s));
        warpgroup_commit();
        warpgroup_wait<1>();
        settle(p);
        if (!now.full(rows, Shape::columns)) hide(p, now, row, lane);
#pragma unroll
        for (int n = 0; n < Shape::columns / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float lse = of_queries ? of_row[e / 2].lse : statistics(at, s, column_of(n, e, lane)).lse;
            p[0][n][e] = exp2_fast(fmaf(p[0][n][e], scale_log2, -lse));
          }
        warpgroup_wait<0>();
        settle(ds);
#pragma unroll
        for (int n = 0; n < Shape::columns / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float delta = of_queries ? of_row[e / 2].delta : statistics(at, s, column_of(n, e, lane)).delta;
            ds[0][n][e] = slope_of<type>(p[0][n][e], ds[0][n][e], delta, unit);
          }
        std::uint32_t left1[Shape::columns / 16][4], left2[Shape::columns / 16][4];
        round_to<type>(left1, ds);
        settle(left1);
        settle(d1);
        if constexpr (!of_queries) {
          round_to<type>(left2, p);
          settle(left2);
          settle(d2);
        }
        warpgroup_fence();
        if constexpr (!of_queries) start_accumulate<type>(d2, left2, at.other2(s));
        start_accumulate<type>(d1, left1, at.other1(s));
        warpgroup_commit();
        warpgroup_wait<0>();
        settle(d1);
        if constexpr (!of_queries) settle(d2);
      }
      __syncwarp();  // nobody of this warp reads the stage any more
      if (lane == 0) memory_barrier_arrive(at.empty(s));
    }
    if (lane == 0) memory_barrier_arrive(at.own_empty());
    own.next();
    add_to(a.gradient1, job, head, row, lane, d1, a.scale * after_slopes<type>(a.largest));
    if constexpr (!of_queries) add_to(a.gradient2, job, head, row, lane, d2, after_weights<type>());
  }
}

}  // namespace annulus::cuda

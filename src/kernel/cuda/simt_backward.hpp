#pragma once
#include "kernel/cuda/simt_products.hpp"

// Backward in two kernels, each of which owns what it writes, so that sums have one order:
//   p = exp(scale q . k - lse),   dp = dout . v,   ds = scale p (dp - delta)
//   dq_i += sum_j ds_ij k_j                          by blocks of queries
//   dv_j += sum_i p_ij dout_i,  dk_j += sum_i ds_ij q_i   by blocks of keys, over all query heads of the group

namespace annulus::cuda::simt {

/// One pair's p and ds; nothing where the row has seen nothing.
template <class Acc>
struct Pair {
  Acc p, ds;
};
template <class Acc>
ANNULUS_GPU Pair<Acc> pair_of(bool visible, Acc s, Acc dp, Acc scale, Acc lse, Acc delta) {
  if (!visible || lse == nothing<Acc>) return {Acc{0}, Acc{0}};
  const Acc p = std::exp(scale * s - lse);
  return {p, scale * p * (dp - delta)};
}

template <class In, class Acc>
struct BackwardQueries {
  static constexpr int threads = simt::threads, shared_bytes = sizeof(Shared<Acc>);
  Problem problem;
  Work work;
  Rows q, dout, lse, delta, k, v, dq;

  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    auto& shared = *reinterpret_cast<Shared<Acc>*>(t.shared());
    const Job job = work.jobs[t.job()];
    const int rows = static_cast<int>(job.end - job.begin);
    const Index h = t.head(), g = problem.kv_head(h);
    const Acc scale = static_cast<Acc>(problem.softmax_scale);
    if (t.index() < side) {
      const bool here = t.index() < rows;
      shared.top[t.index()] = here ? *at<const Acc>(lse, job.begin + t.index(), h) : nothing<Acc>;
      shared.sum[t.index()] = here ? *at<const Acc>(delta, job.begin + t.index(), h) : Acc{0};
    }
    for (Index n = job.first; n < job.last; ++n) {
      Blocks blocks(work.tiles[work.tiles_of[n]], job, Side::queries, side);
      while (blocks.more()) {
        const Block block = blocks.next();
        Acc s[4][4], dp[4][4];
        products<In>(t, shared, {q, job.begin, rows, h}, {k, block.first, block.count, g}, s);
        products<In>(t, shared, {dout, job.begin, rows, h}, {v, block.first, block.count, g}, dp);
        const Place16 place = place_of(t.index());
        for (int y = 0; y < 4; ++y)
          for (int x = 0; x < 4; ++x) {
            const int i = place.y + y, j = place.x + 16 * x;
            shared.weights[i][j] = pair_of(block.sees(i, j), s[y][x], dp[y][x], scale, shared.top[i], shared.sum[i]).ds;
          }
        t.sync();
        accumulate<In, Acc>(t, shared, block, {k, block.first, block.count, g}, nullptr, dq, job.begin, rows, h);
      }
    }
  }
};

template <class In, class Acc>
struct BackwardKeys {
  static constexpr int threads = simt::threads, shared_bytes = sizeof(Shared<Acc>);
  Problem problem;
  Work work;
  Rows q, dout, lse, delta, k, v, dk, dv;

  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    const Job job = work.jobs[t.job()];
    const Index g = t.head();
    // the query heads of this key/value head
    const Index from = g * problem.group - problem.phase, to = from + problem.group;
    for (Index h = from < 0 ? 0 : from; h < to && h < problem.query_heads; ++h)
      for (Index n = job.first; n < job.last; ++n) {
        Blocks blocks(work.tiles[work.tiles_of[n]], job, Side::keys, side);
        while (blocks.more()) meet(t, job, blocks.next(), h, g);
      }
  }

 private:
  // The job's keys (rows) meet a block of queries (columns).
  template <class Thread>
  ANNULUS_GPU void meet(Thread& t, const Job& job, const Block& block, Index h, Index g) const {
    auto& shared = *reinterpret_cast<Shared<Acc>*>(t.shared());
    const int keys = static_cast<int>(job.end - job.begin);
    const Acc scale = static_cast<Acc>(problem.softmax_scale);
    if (t.index() < side) {
      const bool here = t.index() < block.count;
      shared.top[t.index()] = here ? *at<const Acc>(lse, block.first + t.index(), h) : nothing<Acc>;
      shared.sum[t.index()] = here ? *at<const Acc>(delta, block.first + t.index(), h) : Acc{0};
    }
    Acc s[4][4], dp[4][4];
    const Slab queries{q, block.first, block.count, h}, gradients{dout, block.first, block.count, h};
    products<In>(t, shared, {k, job.begin, keys, g}, queries, s);
    products<In>(t, shared, {v, job.begin, keys, g}, gradients, dp);
    const Place16 place = place_of(t.index());
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 4; ++x) {
        const int j = place.y + y, i = place.x + 16 * x;
        const Pair<Acc> pair = pair_of(block.sees(j, i), s[y][x], dp[y][x], scale, shared.top[i], shared.sum[i]);
        shared.weights[j][i] = pair.p;
        s[y][x] = pair.ds;
      }
    t.sync();
    accumulate<In, Acc>(t, shared, block, gradients, nullptr, dv, job.begin, keys, g);
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 4; ++x) shared.weights[place.y + y][place.x + 16 * x] = s[y][x];
    t.sync();
    accumulate<In, Acc>(t, shared, block, queries, nullptr, dk, job.begin, keys, g);
  }
};

}  // namespace annulus::cuda::simt

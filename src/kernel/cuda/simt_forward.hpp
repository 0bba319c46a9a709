#pragma once
#include "kernel/cuda/simt_products.hpp"

// Forward, 64 query rows by 64 keys at a time (Milakov & Gimelshein, arXiv:1805.02867):
//   s = scale q . k,   m' = max(m, max_j s_j),   p_j = exp(s_j - m'),   l' = exp(m - m') l + sum_j p_j,
//   o' = exp(m - m') o + sum_j p_j v_j
// with (o, m, l) in the partial (out, top, sum) from call to call; out itself stays in global memory throughout.

namespace annulus::cuda::simt {

template <class In, class Acc>
struct Forward {
  static constexpr int threads = simt::threads, shared_bytes = sizeof(Shared<Acc>);
  Problem problem;
  Work work;
  Rows q, k, v;
  Partial into;

  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    auto& shared = *reinterpret_cast<Shared<Acc>*>(t.shared());
    const Job job = work.jobs[t.job()];
    const int rows = static_cast<int>(job.end - job.begin);
    const Index h = t.head(), g = problem.kv_head(h);
    const Slab queries{q, job.begin, rows, h};
    if (t.index() < rows) {
      shared.top[t.index()] = *at<Acc>(into.top, job.begin + t.index(), h);
      shared.sum[t.index()] = *at<Acc>(into.sum, job.begin + t.index(), h);
    }
    for (Index n = job.first; n < job.last; ++n) {
      Blocks blocks(work.tiles[work.tiles_of[n]], job, Side::queries, side);
      while (blocks.more()) {
        const Block block = blocks.next();
        Acc s[4][4];
        products<In>(t, shared, queries, {k, block.first, block.count, g}, s);
        const Place16 place = place_of(t.index());
        for (int y = 0; y < 4; ++y)
          for (int x = 0; x < 4; ++x) {
            const int i = place.y + y, j = place.x + 16 * x;
            shared.weights[i][j] = block.sees(i, j) ? static_cast<Acc>(problem.softmax_scale) * s[y][x] : nothing<Acc>;
          }
        t.sync();
        softmax(t, shared, rows);
        t.sync();
        accumulate<In, Acc>(t, shared, block, {v, block.first, block.count, g}, shared.keep, into.out, job.begin, rows,
                            h);
      }
    }
    t.sync();
    if (t.index() >= rows) return;
    *at<Acc>(into.top, job.begin + t.index(), h) = shared.top[t.index()];
    *at<Acc>(into.sum, job.begin + t.index(), h) = shared.sum[t.index()];
  }

 private:
  // Scores become probabilities against the new top: four threads of one warp per row, every fourth key each.
  template <class Thread>
  ANNULUS_GPU static void softmax(Thread& t, Shared<Acc>& shared, int rows) {
    const int r = t.index() / 4, part = t.index() % 4;
    Acc highest = nothing<Acc>;
    for (int j = part; j < side; j += 4) highest = larger(highest, shared.weights[r][j]);
    highest = larger(highest, t.shuffle_xor(highest, 1));
    highest = larger(highest, t.shuffle_xor(highest, 2));
    const Acc before = r < rows ? shared.top[r] : nothing<Acc>, top = larger(before, highest),
              base = top == nothing<Acc> ? Acc{0} : top;
    Acc sum = 0;
    for (int j = part; j < side; j += 4) {
      const Acc p = std::exp(shared.weights[r][j] - base);
      shared.weights[r][j] = p;
      sum += p;
    }
    sum += t.shuffle_xor(sum, 1);
    sum += t.shuffle_xor(sum, 2);
    if (part != 0 || r >= rows) return;
    const Acc keep = before == nothing<Acc> ? Acc{0} : std::exp(before - base);
    shared.keep[r] = keep;
    shared.sum[r] = keep * shared.sum[r] + sum;
    shared.top[r] = top;
  }
};

}  // namespace annulus::cuda::simt

#pragma once
#include <cstdint>

#include "kernel/cuda/simt_products.hpp"

// Statistics of p = exp(s - lse), 64 query rows by 64 keys at a time. What rows of several blocks add to (the mass that
// keys and cells of the map receive) is summed in whole numbers of 2^-scale, so that the order does not matter.

namespace annulus::cuda::simt {

using Fixed = unsigned long long;

/// f32: up to 2^27 queries; f64 (tests): up to 2^17.
template <class Acc>
inline constexpr double fixed_scale = sizeof(Acc) == sizeof(float) ? 0x1p36 : 0x1p46;

template <class Acc>
ANNULUS_GPU Fixed fixed(Acc mass) {
  return mass > 0 ? static_cast<Fixed>(static_cast<double>(mass) * fixed_scale<Acc> + 0.5) : Fixed{0};
}

template <class In, class Acc>
struct Observe {
  static constexpr int threads = simt::threads, shared_bytes = sizeof(Shared<Acc>);
  Problem problem;
  Work work;
  Rows q, k, lse;
  Observation into;
  Fixed* received;  ///< [keys, query_heads], or none
  Fixed* map;       ///< [query_heads, query_blocks, key_blocks], or none

  template <class Thread>
  ANNULUS_GPU void operator()(Thread& t) const {
    auto& shared = *reinterpret_cast<Shared<Acc>*>(t.shared());
    const Job job = work.jobs[t.job()];
    const int rows = static_cast<int>(job.end - job.begin), r = t.index() / 4;
    const Index h = t.head();
    const Acc l = r < rows ? *at<const Acc>(lse, job.begin + r, h) : nothing<Acc>;
    Sums sums;
    for (Index n = job.first; n < job.last; ++n) {
      const Tile tile = work.tiles[work.tiles_of[n]];
      Blocks blocks(tile, job, Side::queries, side);
      while (blocks.more()) {
        const Index key = tile.k_at + blocks.place() * tile.stride,
                    query = tile.q_at + (job.begin - tile.q.begin + r) * tile.stride;
        const Block block = blocks.next();
        Acc s[4][4];
        products<In>(t, shared, {q, job.begin, rows, h}, {k, block.first, block.count, problem.kv_head(h)}, s);
        const Place16 place = place_of(t.index());
        for (int y = 0; y < 4; ++y)
          for (int x = 0; x < 4; ++x) {
            const int i = place.y + y, j = place.x + 16 * x;
            shared.weights[i][j] =
                i < rows && block.sees(i, j) ? static_cast<Acc>(problem.softmax_scale) * s[y][x] : nothing<Acc>;
          }
        t.sync();
        if (t.index() % 4 == 0 && r < rows && !into.top_score.absent())
          rank(shared.weights[r], block.count, job.begin + r, h, key, tile.stride);
        t.sync();
        gather(t, shared.weights[r], l, key, query, tile.stride, h, sums);
        t.sync();
        if (received != nullptr && t.index() < block.count) {
          Acc mass = 0;
          for (int i = 0; i < rows; ++i) mass += shared.weights[i][t.index()];
          t.add(received + (block.first + t.index()) * problem.query_heads + h, fixed(mass));
        }
        t.sync();
      }
    }
    for (int mask = 1; mask < 4; mask *= 2) {
      sums.entropy += t.shuffle_xor(sums.entropy, mask);
      sums.sink += t.shuffle_xor(sums.sink, mask);
      sums.distance += t.shuffle_xor(sums.distance, mask);
      sums.highest = larger(sums.highest, t.shuffle_xor(sums.highest, mask));
    }
    if (t.index() % 4 != 0 || r >= rows) return;
    const Index row = job.begin + r;
    if (!into.entropy.absent()) *at<Acc>(into.entropy, row, h) += sums.entropy;
    if (!into.sink_mass.absent()) *at<Acc>(into.sink_mass, row, h) += sums.sink;
    if (!into.mean_distance.absent()) *at<Acc>(into.mean_distance, row, h) += sums.distance;
    if (!into.max_probability.absent())
      *at<Acc>(into.max_probability, row, h) = larger(*at<Acc>(into.max_probability, row, h), sums.highest);
  }

 private:
  struct Sums {
    Acc entropy = 0, sink = 0, distance = 0, highest = 0;
  };

  // Turns a row's scores into probabilities; four threads per row, every fourth key each.
  template <class Thread>
  ANNULUS_GPU void gather(Thread& t, Acc* row, Acc l, Index first_key, Index query, Index stride, Index h,
                          Sums& sums) const {
    Acc cell_mass = 0;
    Index cell = -1;
    for (int j = t.index() % 4; j < side; j += 4) {
      const Acc s = row[j], p = s == nothing<Acc> || l == nothing<Acc> ? Acc{0} : std::exp(s - l);
      row[j] = p;
      if (p == 0) continue;
      const Index key = first_key + j * stride, apart = key - query - problem.query_shift;
      sums.entropy += p * (l - s);
      sums.highest = larger(sums.highest, p);
      sums.distance += p * static_cast<Acc>(apart < 0 ? -apart : apart);
      if (key < into.sink_tokens) sums.sink += p;
      if (map == nullptr) continue;
      const Index here =
          (h * into.query_blocks + query / into.block_tokens) * into.key_blocks + key / into.block_tokens;
      if (here != cell && cell >= 0) t.add(map + cell, fixed(cell_mass));
      cell_mass = (here == cell ? cell_mass : Acc{0}) + p;
      cell = here;
    }
    if (cell >= 0) t.add(map + cell, fixed(cell_mass));
  }

  // Puts the block's keys into the row's sorted list where they belong: larger scores first, then smaller keys.
  ANNULUS_GPU void rank(const Acc* scores, int count, Index row, Index h, Index first_key, Index stride) const {
    const Index places = into.top_score.channels;
    Acc* list = at<Acc>(into.top_score, row, h);
    Index* keys = into.top_index.data() + (row * into.top_score.heads + h) * places;
    for (int j = 0; j < count && places > 0; ++j) {
      const Acc s = scores[j];
      const Index key = first_key + j * stride;
      if (s == nothing<Acc>) continue;
      Index place = places;
      while (place > 0 &&
             !(keys[place - 1] >= 0 && (list[place - 1] > s || (list[place - 1] == s && keys[place - 1] < key)))) {
        --place;
        if (place + 1 < places) {
          list[place + 1] = list[place];
          keys[place + 1] = keys[place];
        }
      }
      if (place == places) continue;
      list[place] = s;
      keys[place] = key;
    }
  }
};

}  // namespace annulus::cuda::simt

#include "annulus/plan/cost.hpp"

#include <algorithm>
#include <numeric>

#include "annulus/base/error.hpp"
#include "plan/pace.hpp"

namespace annulus {

std::vector<Index> query_shares(const Prices& p, int lanes) {
  std::vector<Index> shares;
  for (Index lane = 0; lane < lanes; ++lane)
    shares.push_back(p.query_heads * (lane + 1) / lanes - p.query_heads * lane / lanes);
  return shares;
}

std::vector<Index> kv_shares(const Prices& p, int lanes) {
  const Index group = p.query_heads / p.kv_heads;
  std::vector<Index> shares;
  for (Index lane = 0; lane < lanes; ++lane) {
    const Index begin = p.query_heads * lane / lanes, end = p.query_heads * (lane + 1) / lanes;
    shares.push_back(end > begin ? ceil_div(end, group) - begin / group : 0);
  }
  return shares;
}

Index largest_query_share(const Prices& p, int lanes) { return std::ranges::max(query_shares(p, lanes)); }
Index largest_kv_share(const Prices& p, int lanes) { return std::ranges::max(kv_shares(p, lanes)); }

std::vector<double> seat_slowness(const Grid& grid, const Prices& p) {
  std::vector<double> slowness(static_cast<std::size_t>(grid.seats()), 1.0);
  if (p.weights.empty()) return slowness;
  require(p.weights.size() == static_cast<std::size_t>(grid.ranks()),
          "prices need one weight per rank: weights = ", p.weights.size(), ", ranks = ", grid.ranks());
  const double mean = std::accumulate(p.weights.begin(), p.weights.end(), 0.0) / grid.ranks();
  const std::vector<double> weights = weights_in_seats(p.weights, grid.heads);
  for (std::size_t seat = 0; seat < slowness.size(); ++seat)
    slowness[seat] = mean / weights[seat * static_cast<std::size_t>(grid.heads)];
  return slowness;
}

Index saved_row_bytes(const Prices& p, Index query_share) {
  constexpr Index f32 = 4;
  const Index bytes = query_share * ((p.channels + p.value_channels) * p.element_bytes + 2 * f32);
  return ceil_div(bytes, 8) * 8;
}

namespace {

// The arrays of a seat's heads, and the pieces of this rank's rows that are on their way from or to them: whichever moment of a pass
// needs the most. What the seat computed from is given up before results go back (engine/attention.cpp).
Index exchanged_bytes(const Schedule& job, const Prices& p) {
  constexpr Index f32 = 4;
  const Index seat = job.planner.queries().largest() * largest_query_share(p, job.grid.heads),
              own = job.queries.largest() * p.query_heads,
              kv = job.planner.keys().largest() * largest_kv_share(p, job.grid.heads) * (p.channels + p.value_channels) *
                   p.element_bytes,
              q = p.channels * p.element_bytes, out = (p.value_channels + 2) * f32;  // of one row and head
  Index most = std::max({(seat + own) * q, seat * (q + out) + 2 * kv, (seat + own) * out});
  if (!p.backward) return most;
  const Index dout = p.value_channels * p.element_bytes, dq = p.channels * f32, saved = 2 * f32;
  return std::max({most, seat * (q + dout) + own * dout + 2 * kv, seat * (q + dout + saved + dq) + 2 * kv,
                   seat * (saved + dq) + own * dq});
}

}  // namespace

Footprint footprint(const Schedule& job, Index buffer_rows, const Prices& p) {
  constexpr Index f32 = 4;
  const Index width = p.channels + p.value_channels, rows = job.queries.largest(), keys = job.keys.largest();
  const Index seat_queries = job.planner.queries().largest(), seat_keys = job.planner.keys().largest();
  const Index query_share = largest_query_share(p, job.grid.heads);
  const Index block_row = largest_kv_share(p, job.grid.heads) * width;
  Footprint f;
  f.inputs = (rows * p.query_heads * p.channels + keys * p.kv_heads * width) * p.element_bytes;
  f.results = rows * p.query_heads * (p.value_channels + 2) * f32;
  if (p.backward) {
    f.inputs += rows * p.query_heads * p.value_channels * p.element_bytes;
    f.results += f32 * (2 * rows * p.query_heads * p.channels + keys * p.kv_heads * width);
  }
  if (job.grid.heads > 1) f.heads = exchanged_bytes(job, p);
  // two buffers for visitors, three for what is summed up for them, the own sums and what comes home
  const auto buffers = [&](Index row_bytes) { return 2 * buffer_rows * row_bytes; };
  const auto sums = [&](Index own, Index row) {
    return f32 * row * (3 * buffer_rows + own + std::max(own, buffer_rows));
  };
  const Index keys_forward = buffers(block_row * p.element_bytes),
              keys_backward = keys_forward + sums(seat_keys, block_row);
  const Index partial_row = query_share * (p.value_channels + 2);
  switch (job.grid.travel) {
    case Travel::keys:
    case Travel::gather:
      f.blocks = p.backward ? keys_backward : keys_forward;
      break;
    case Travel::queries:
      f.blocks = buffers(query_share * p.channels * p.element_bytes) + sums(seat_queries, partial_row);
      if (p.backward)
        f.blocks = std::max(f.blocks, buffers(saved_row_bytes(p, query_share)) +
                                          sums(seat_queries, query_share * p.channels));
      break;
    case Travel::tree: {  // every query, and twice what is known of it
      const Index all = job.mask.queries();
      f.blocks = 2 * all * query_share * p.channels * p.element_bytes + 2 * f32 * all * partial_row;
      if (p.backward) f.blocks = std::max(f.blocks, keys_backward);
      break;
    }
  }
  return f;
}

double least_seconds(const Schedule& job, const Prices& prices) {
  const Paces paces(job, prices);
  const double each = paces.forward.least() + (prices.backward ? paces.backward.least() : 0);
  const bool strided =
      std::ranges::any_of(job.planner.queries().runs(0), [](const Run& run) { return run.stride > 1; });
  const std::vector<double> slowness = seat_slowness(job.grid, prices);
  double speed = 0;  // of all seats together
  for (const double slow : slowness) speed += 1 / slow;
  double most = static_cast<double>(job.mask.pairs()) / speed;
  for (Rank seat = 0; seat < job.planner.seats() && !strided; ++seat)  // a closed form for each
    most = std::max(most, static_cast<double>(job.planner.pairs_of(seat)) * slowness[static_cast<std::size_t>(seat)]);
  return most * each;
}

}  // namespace annulus

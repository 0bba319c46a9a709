#include "annulus/engine/heads.hpp"

#include <numeric>

#include "annulus/base/error.hpp"

namespace annulus {

void check(const AttentionShape& s) {
  require(s.query_heads >= 1 && s.kv_heads >= 1, "there must be at least one head: query heads = ", s.query_heads,
          ", key/value heads = ", s.kv_heads);
  require(s.query_heads % s.kv_heads == 0,
          "the key/value heads must divide the query heads: query heads = ", s.query_heads,
          ", key/value heads = ", s.kv_heads);
  require(s.channels >= 1 && s.channels <= 512 && s.value_channels >= 1 && s.value_channels <= 512,
          "channels must be 1 to 512: channels = ", s.channels, ", value channels = ", s.value_channels);
}

HeadShare share_of(const AttentionShape& shape, const Grid& grid, int lane) {
  const Range query{shape.query_heads * lane / grid.heads, shape.query_heads * (lane + 1) / grid.heads};
  if (query.empty()) return {query, {0, 0}};
  return {query, {query.begin / shape.group(), ceil_div(query.end, shape.group())}};
}

Problem problem_of(const AttentionShape& shape, const Grid& grid, int lane, Index query_shift) {
  const HeadShare share = share_of(shape, grid, lane);
  Problem problem;
  problem.query_heads = share.query.count();
  problem.kv_heads = share.kv.count();
  problem.channels = shape.channels;
  problem.value_channels = shape.value_channels;
  problem.group = shape.group();
  problem.phase = share.query.begin - share.kv.begin * shape.group();
  problem.type = shape.type;
  problem.softmax_scale = shape.softmax_scale;
  problem.query_shift = query_shift;
  return problem;
}

HeadExchange::HeadExchange(Device& device, Transport& transport, Rank first_rank, int lane,
                           std::vector<Index> member_tokens)
    : device_(device),
      transport_(transport),
      first_rank_(first_rank),
      lane_(lane),
      member_tokens_(std::move(member_tokens)) {}

Index HeadExchange::seat_tokens() const {
  return std::accumulate(member_tokens_.begin(), member_tokens_.end(), Index{0});
}

Array HeadExchange::gather(const Rows& mine, std::span<const Range> shares) const {
  const Range own = shares[static_cast<std::size_t>(lane_)];
  Array all(device_, mine.type, seat_tokens(), own.count(), mine.channels);
  std::vector<Array> parts;
  std::vector<Send> sends;
  std::vector<Recv> recvs;
  Index at = 0;
  for (std::size_t u = 0; u < member_tokens_.size(); ++u) {
    const Rank peer = first_rank_ + static_cast<Rank>(u);
    parts.emplace_back(lending(transport_, device_), mine.type, mine.tokens, shares[u].count(), mine.channels);
    device_.copy_rows(mine.take_heads(shares[u].begin, shares[u].end), parts.back());
    sends.push_back({peer, parts.back().rows().span(0, mine.tokens)});
    recvs.push_back({peer, all.rows().span(at, at + member_tokens_[u])});
    at += member_tokens_[u];
  }
  transport_.start(sends, recvs).wait();
  return all;
}

std::vector<Array> HeadExchange::send_back(const Rows& all, std::span<const Range> shares, DType type,
                                           Index channels) const {
  const Index mine = member_tokens_[static_cast<std::size_t>(lane_)];
  std::vector<Array> parts;
  std::vector<Send> sends;
  std::vector<Recv> recvs;
  Index at = 0;
  require<Failure::runtime>(all.dense(), "rows that go back to their tokens must be dense");
  for (std::size_t u = 0; u < member_tokens_.size(); ++u) {
    const Rank peer = first_rank_ + static_cast<Rank>(u);
    parts.emplace_back(device_, type, mine, shares[u].count(), channels);
    sends.push_back({peer, all.span(at, at + member_tokens_[u])});
    recvs.push_back({peer, parts.back().rows().span(0, mine)});
    at += member_tokens_[u];
  }
  transport_.start(sends, recvs).wait();
  return parts;
}

void HeadExchange::scatter_add(const Rows& all, std::span<const Range> shares, const Rows& into) const {
  const auto parts = send_back(all, shares, into.type, into.channels);
  for (std::size_t u = 0; u < parts.size(); ++u) device_.add(parts[u], into.take_heads(shares[u].begin, shares[u].end));
}

void HeadExchange::scatter(const Rows& all, std::span<const Range> shares, const Rows& into) const {
  const auto parts = send_back(all, shares, into.type, into.channels);
  for (std::size_t u = 0; u < parts.size(); ++u)
    device_.copy_rows(parts[u], into.take_heads(shares[u].begin, shares[u].end));
}

}  // namespace annulus

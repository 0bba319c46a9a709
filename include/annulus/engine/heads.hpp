#pragma once
#include <span>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "annulus/kernel/kernel.hpp"
#include "annulus/plan/itinerary.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus {

/// The attention a job computes, all heads of it.
struct AttentionShape {
  Index query_heads = 1, kv_heads = 1;
  Index channels = 64, value_channels = 64;
  DType type = DType::f32;  ///< of q, k, v and dout: storage and exchange
  double softmax_scale = 1;

  /// Query heads per K/V head.
  Index group() const { return query_heads / kv_heads; }
};

/// Throws Error (usage) unless heads and channels are positive, channels at most 512, and kv_heads divides query_heads.
void check(const AttentionShape& shape);

/// The heads one lane of a seat computes: an even share of the query heads and the K/V heads these need. A K/V head
/// whose group is cut by a share is replicated; a lane may have no heads when there are more lanes than heads.
struct HeadShare {
  Range query, kv;
};
HeadShare share_of(const AttentionShape& shape, const Grid& grid, int lane);

/// What the kernel of this lane is made for.
Problem problem_of(const AttentionShape& shape, const Grid& grid, int lane, Index query_shift);

/// The trade of tokens for heads inside a seat, in one batch each way.
class HeadExchange {
 public:
  /// member_tokens[u]: tokens that the u-th rank of the seat owns; first_rank: its rank 0; lane: our own place.
  HeadExchange(Device& device, Transport& transport, Rank first_rank, int lane, std::vector<Index> member_tokens);
  /// mine [own tokens, all heads, channels] -> the seat's tokens (member after member), the heads of our share.
  Array gather(const Rows& mine, std::span<const Range> shares) const;
  /// The way back: all [seat tokens, heads of our share, channels] -> into [own tokens, all heads, channels], added to
  /// what is there, lane by lane (heads in several shares are thereby summed).
  void scatter_add(const Rows& all, std::span<const Range> shares, const Rows& into) const;
  /// As scatter_add, but overwrites; shares must be disjoint. Moves bits of any type.
  void scatter(const Rows& all, std::span<const Range> shares, const Rows& into) const;
  Index seat_tokens() const;

 private:
  std::vector<Array> send_back(const Rows& all, std::span<const Range> shares, DType type, Index channels) const;
  Device& device_;
  Transport& transport_;
  Rank first_rank_;
  int lane_;
  std::vector<Index> member_tokens_;
};

}  // namespace annulus

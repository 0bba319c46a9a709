#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "annulus/transport/transport.hpp"

namespace annulus {

/// The few collectives that set-up and results need, made of batches; all ranks call them in the same order. For
/// numbers and small tables: messages are P^2 (P to the root). Folding is in order of ranks, so results are the same
/// everywhere.

void barrier(Transport& transport);
/// The end of all loans (Send::lent): returns when nobody reads any more what this rank has lent since the last recall.
/// All ranks, each when it has read what it was lent. Nothing happens where transport.shared() is null.
void recall(Transport& transport);
/// What every rank gave, by rank.
std::vector<std::vector<std::byte>> all_gather(Transport& transport, std::span<const std::byte> mine);
/// What every rank gave, by rank, on the root; empty elsewhere.
std::vector<std::vector<std::byte>> gather(Transport& transport, Rank root, std::span<const std::byte> mine);
/// Replaces `bytes` by the root's.
void broadcast(Transport& transport, Rank root, std::vector<std::byte>& bytes);
/// Element-wise over all ranks; every rank gets the result.
void all_sum(Transport& transport, std::span<double> values);
void all_max(Transport& transport, std::span<double> values);
/// Element-wise sum, on the root only.
void sum_to(Transport& transport, Rank root, std::span<double> values);

/// Every rank tells whether it is well; when somebody is not, all throw the Error of the lowest such rank, with "rank
/// N: " in front when not all are unwell in the same words. So every rank stops together, with one exit code.
void agree(Transport& transport, const Error* mine);

}  // namespace annulus

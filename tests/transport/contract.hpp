#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "annulus/transport/collectives.hpp"
#include "annulus/transport/transport.hpp"
#include "support/sanitized.hpp"

// What every transport must do, checked with plain values so that any number of ranks can run it, in threads or under
// mpirun. Each function is called by all ranks.
namespace annulus::contract {

inline std::vector<int> numbers(Rank from, Rank to, int message, std::size_t length) {
  std::vector<int> values(length);
  std::iota(values.begin(), values.end(), from * 1'000'003 + to * 1'009 + message * 17);
  return values;
}

/// Messages of many lengths, zero included, between all pairs and to oneself, in several batches that are all pending
/// together: each arrives whole, in order, in the right place.
inline void messages_arrive_in_order(Transport& t) {
  const std::vector<std::size_t> lengths{0, 1, 7, 1024, 0, sanitized ? 10'000U : 100'000U};
  constexpr int batches = 3;
  std::vector<std::vector<std::vector<int>>> out(batches), in(batches);
  std::vector<Pending> pending;
  for (int b = 0; b < batches; ++b) {
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    out[b].reserve(lengths.size() * static_cast<std::size_t>(t.ranks()));
    in[b].reserve(out[b].capacity());
    for (std::size_t m = 0; m < lengths.size(); ++m)
      for (Rank peer = 0; peer < t.ranks(); ++peer) {
        out[b].push_back(numbers(t.rank(), peer, static_cast<int>(m) + 100 * b, lengths[m]));
        sends.push_back({peer, std::as_bytes(std::span(out[b].back()))});
        in[b].emplace_back(lengths[m]);
        recvs.push_back({peer, std::as_writable_bytes(std::span(in[b].back()))});
      }
    pending.push_back(t.start(sends, recvs));
  }
  for (auto& batch : pending) batch.wait();
  for (int b = 0; b < batches; ++b)
    for (std::size_t m = 0; m < lengths.size(); ++m)
      for (Rank peer = 0; peer < t.ranks(); ++peer)
        EXPECT_EQ(in[b][m * static_cast<std::size_t>(t.ranks()) + static_cast<std::size_t>(peer)],
                  numbers(peer, t.rank(), static_cast<int>(m) + 100 * b, lengths[m]));
}

/// Polling alone completes a batch; an empty batch is complete at once.
inline void polling_is_enough(Transport& t) {
  Pending nothing = t.start({}, {});
  EXPECT_TRUE(nothing.poll());
  nothing.wait();
  const Rank next = (t.rank() + 1) % t.ranks(), before = (t.rank() + t.ranks() - 1) % t.ranks();
  std::vector<int> out = numbers(t.rank(), next, 5, 300'000), in(out.size());
  const Send send{next, std::as_bytes(std::span(out))};
  const Recv recv{before, std::as_writable_bytes(std::span(in))};
  Pending moving = t.start({&send, 1}, {&recv, 1});
  while (!moving.poll()) std::this_thread::yield();
  EXPECT_EQ(in, numbers(before, t.rank(), 5, in.size()));
  moving.wait();
}

inline void collectives_agree_everywhere(Transport& t) {
  barrier(t);
  const std::vector<int> mine = numbers(t.rank(), 0, 0, static_cast<std::size_t>(t.rank()) * 3);
  const auto all = all_gather(t, std::as_bytes(std::span(mine)));
  ASSERT_EQ(static_cast<int>(all.size()), t.ranks());
  for (Rank r = 0; r < t.ranks(); ++r)
    EXPECT_EQ(all[static_cast<std::size_t>(r)].size(), static_cast<std::size_t>(r) * 3 * sizeof(int));
  const auto to_last = gather(t, t.ranks() - 1, std::as_bytes(std::span(mine)));
  EXPECT_EQ(to_last.size(), t.rank() == t.ranks() - 1 ? static_cast<std::size_t>(t.ranks()) : 0U);
  std::vector<std::byte> word;
  if (t.rank() == 0) word = {std::byte{4}, std::byte{2}};
  broadcast(t, 0, word);
  EXPECT_EQ(word, (std::vector<std::byte>{std::byte{4}, std::byte{2}}));
  std::vector<double> values{1.0, static_cast<double>(t.rank())}, largest = values, on_root = values;
  const double ranks = t.ranks();
  all_sum(t, values);
  EXPECT_EQ(values, (std::vector<double>{ranks, ranks * (ranks - 1) / 2}));
  all_max(t, largest);
  EXPECT_EQ(largest, (std::vector<double>{1.0, ranks - 1}));
  sum_to(t, 0, on_root);
  if (t.rank() == 0) {
    EXPECT_EQ(on_root, values);
  }
}

inline void agreement_stops_all_ranks_with_one_sentence(Transport& t) {
  agree(t, nullptr);
  const Error mine(Failure::file, "the file is gone");
  try {
    agree(t, t.rank() == t.ranks() - 1 ? &mine : nullptr);
    ADD_FAILURE() << "nobody heard";
  } catch (const Error& e) {
    EXPECT_EQ(e.failure(), Failure::file);
    EXPECT_NE(std::string(e.what()).find("the file is gone"), std::string::npos);
  }
  try {
    agree(t, &mine);
    ADD_FAILURE() << "nobody heard";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "the file is gone");
  }
}

inline void everything(Transport& t) {
  messages_arrive_in_order(t);
  polling_is_enough(t);
  collectives_agree_everywhere(t);
  agreement_stops_all_ranks_with_one_sentence(t);
  messages_arrive_in_order(t);
}

}  // namespace annulus::contract

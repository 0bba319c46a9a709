#pragma once
#include <gtest/gtest.h>

#include <vector>

#include "annulus/memory/device.hpp"
#include "annulus/transport/collectives.hpp"
#include "annulus/transport/transport.hpp"

// What lending means, on every transport: the bytes are the same whether they are read in place or copied. Each function
// is called by all ranks.
namespace annulus::loans {

inline constexpr Index tokens = 3000;

inline void write(const Rows& rows, Rank rank, int round) {
  for (Index t = 0; t < rows.tokens; ++t) *rows.at<double>(t) = rank * 1e6 + round * 1e4 + static_cast<double>(t);
}
inline bool says(const std::byte* bytes, Rank rank, int round) {
  const auto* values = reinterpret_cast<const double*>(bytes);
  for (Index t = 0; t < tokens; ++t)
    if (values[t] != rank * 1e6 + round * 1e4 + static_cast<double>(t)) return false;
  return true;
}

/// Blocks go once around, always from where they lie; owners write anew only after the recall.
inline void blocks_go_around_in_place(Transport& t) {
  CpuDevice cpu;
  const Rank next = (t.rank() + 1) % t.ranks(), before = (t.rank() + t.ranks() - 1) % t.ranks();
  const Array own(lending(t, cpu), DType::f64, tokens, 1, 1),
      buffers[2]{{cpu, DType::f64, tokens, 1, 1}, {cpu, DType::f64, tokens, 1, 1}};
  for (int round = 0; round < 3; ++round) {
    write(own, t.rank(), round);
    if (t.shared() != nullptr) t.shared()->lend();
    const std::byte* here = own.rows().data;
    bool lent = true;
    for (int step = 1; step <= t.ranks(); ++step) {
      const std::span<std::byte> into = buffers[step % 2].rows().span(0, tokens);
      const std::byte* seen = into.data();
      const Send send{next, {here, into.size()}, lent};
      const Recv recv{before, into, &seen};
      t.start({&send, 1}, {&recv, 1}).wait();
      EXPECT_TRUE(says(seen, (t.rank() + step * (t.ranks() - 1)) % t.ranks(), round)) << "step " << step;
      EXPECT_EQ(seen != into.data(), t.shared() != nullptr) << "it is copied only where it must be";
      here = seen;
      lent = seen != into.data();
    }
    recall(t);
  }
}

/// What is not lent, or not wanted in place, is copied: its sender may write as soon as its batch is done.
inline void what_is_not_lent_is_copied(Transport& t) {
  CpuDevice cpu;
  const Rank next = (t.rank() + 1) % t.ranks(), before = (t.rank() + t.ranks() - 1) % t.ranks();
  const Array own(lending(t, cpu), DType::f64, tokens, 1, 1), plain(cpu, DType::f64, tokens, 1, 1),
      into(cpu, DType::f64, 3 * tokens, 1, 1);
  for (int round = 0; round < 3; ++round) {
    write(own, t.rank(), round);
    write(plain, t.rank(), round + 100);
    std::array<const std::byte*, 3> seen{};
    for (Index i = 0; i < 3; ++i) seen[static_cast<std::size_t>(i)] = into.rows().span(i * tokens, (i + 1) * tokens).data();
    const auto asked = seen;
    const std::vector<Send> sends{{next, own.rows().span(0, tokens), false},
                                  {next, plain.rows().span(0, tokens), true},  // nobody can read it there
                                  {next, own.rows().span(0, tokens), true}};
    const std::vector<Recv> recvs{{before, into.rows().span(0, tokens), seen.data()},
                                  {before, into.rows().span(tokens, 2 * tokens), &seen[1]},
                                  {before, into.rows().span(2 * tokens, 3 * tokens)}};
    Pending moving = t.start(sends, recvs);
    moving.wait();
    EXPECT_EQ(seen, asked);
    barrier(t);  // for the one that was lent and is not wanted in place
    write(own, t.rank(), round + 50);
    write(plain, t.rank(), round + 50);
    EXPECT_TRUE(says(into.rows().span(0, tokens).data(), before, round));
    EXPECT_TRUE(says(into.rows().span(tokens, 2 * tokens).data(), before, round + 100));
    EXPECT_TRUE(says(into.rows().span(2 * tokens, 3 * tokens).data(), before, round));
    recall(t);
  }
}

/// Ranks may wait for their batches in different orders.
inline void batches_help_one_another(Transport& t) {
  CpuDevice cpu;
  const Rank next = (t.rank() + 1) % t.ranks(), before = (t.rank() + t.ranks() - 1) % t.ranks();
  const Array own(lending(t, cpu), DType::f64, tokens, 1, 1), into(cpu, DType::f64, 2 * tokens, 1, 1);
  write(own, t.rank(), 0);
  std::array<Pending, 2> pending;
  for (Index b = 0; b < 2; ++b) {
    const Send send{next, own.rows().span(0, tokens)};
    const Recv recv{before, into.rows().span(b * tokens, (b + 1) * tokens)};
    pending[static_cast<std::size_t>(b)] = t.start({&send, 1}, {&recv, 1});
  }
  const std::size_t first = t.rank() % 2 == 0 ? 0 : 1;
  pending[first].wait();
  pending[1 - first].wait();
  for (Index b = 0; b < 2; ++b) EXPECT_TRUE(says(into.rows().span(b * tokens, (b + 1) * tokens).data(), before, 0));
}

inline void everything(Transport& t) {
  blocks_go_around_in_place(t);
  what_is_not_lent_is_copied(t);
  batches_help_one_another(t);
  blocks_go_around_in_place(t);
}

}  // namespace annulus::loans

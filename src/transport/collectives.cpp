#include "annulus/transport/collectives.hpp"

#include <algorithm>
#include <cstring>

namespace annulus {
namespace {

template <class T>
std::span<std::byte> bytes_of_values(std::span<T> values) {
  return std::as_writable_bytes(values);
}

void fold(const std::vector<std::vector<std::byte>>& all, std::span<double> values, bool maximum) {
  std::vector<double> theirs(values.size());
  for (std::size_t r = 0; r < all.size(); ++r) {
    require<Failure::communication>(all[r].size() == values.size_bytes(), "ranks must reduce equally many values");
    if (all[r].empty()) continue;
    std::memcpy(theirs.data(), all[r].data(), all[r].size());
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = r == 0 ? theirs[i] : maximum ? std::max(values[i], theirs[i]) : values[i] + theirs[i];
  }
}

// One batch in which `senders` tell `receivers` their length, and one with the bytes.
std::vector<std::vector<std::byte>> collect(Transport& t, std::span<const std::byte> mine, bool i_send_to_all,
                                            Rank only_to, bool i_receive) {
  const auto ranks = static_cast<std::size_t>(t.ranks());
  Index length = static_cast<Index>(mine.size());
  std::vector<Index> lengths(i_receive ? ranks : 0);
  std::vector<std::vector<std::byte>> all(lengths.size());
  std::vector<Send> sends;
  std::vector<Recv> recvs;
  const auto exchange = [&](std::span<const std::byte> out, auto into) {
    sends.clear();
    recvs.clear();
    for (Rank r = 0; r < t.ranks(); ++r)
      if (i_send_to_all || r == only_to) sends.push_back({.to = r, .bytes = out, .control = true});
    for (std::size_t r = 0; r < all.size(); ++r)
      recvs.push_back({.from = static_cast<Rank>(r), .bytes = into(r), .control = true});
    t.start(sends, recvs).wait();
  };
  exchange(std::as_bytes(std::span(&length, 1)),
           [&](std::size_t r) { return bytes_of_values(std::span(&lengths[r], 1)); });
  for (std::size_t r = 0; r < all.size(); ++r) all[r].resize(static_cast<std::size_t>(lengths[r]));
  exchange(mine, [&](std::size_t r) { return std::span(all[r]); });
  return all;
}

constexpr Rank no_single_receiver = -1;

}  // namespace

void barrier(Transport& transport) { all_gather(transport, {}); }

// In rounds of 1, 2, 4 ... ranks' distance, after which everybody has heard of everybody.
void recall(Transport& t) {
  if (t.shared() == nullptr) return;
  for (int distance = 1; distance < t.ranks(); distance *= 2) {
    std::byte mine{1}, theirs{0};
    const Send send{.to = (t.rank() + distance) % t.ranks(), .bytes = std::span(&mine, 1), .control = true};
    const Recv recv{
        .from = (t.rank() - distance + t.ranks()) % t.ranks(), .bytes = std::span(&theirs, 1), .control = true};
    t.start({&send, 1}, {&recv, 1}).wait();
  }
  t.shared()->reclaim();
}

std::vector<std::vector<std::byte>> all_gather(Transport& transport, std::span<const std::byte> mine) {
  return collect(transport, mine, true, no_single_receiver, true);
}

std::vector<std::vector<std::byte>> gather(Transport& transport, Rank root, std::span<const std::byte> mine) {
  return collect(transport, mine, false, root, transport.rank() == root);
}

void broadcast(Transport& t, Rank root, std::vector<std::byte>& bytes) {
  Index length = static_cast<Index>(bytes.size());
  const auto exchange = [&](std::span<std::byte> data) {
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    for (Rank r = 0; r < t.ranks() && t.rank() == root; ++r)
      if (r != root) sends.push_back({.to = r, .bytes = data, .control = true});
    if (t.rank() != root) recvs.push_back({.from = root, .bytes = data, .control = true});
    t.start(sends, recvs).wait();
  };
  exchange(bytes_of_values(std::span(&length, 1)));
  bytes.resize(static_cast<std::size_t>(length));
  exchange(bytes);
}

void all_sum(Transport& transport, std::span<double> values) {
  fold(all_gather(transport, std::as_bytes(values)), values, false);
}

void all_max(Transport& transport, std::span<double> values) {
  fold(all_gather(transport, std::as_bytes(values)), values, true);
}

void sum_to(Transport& transport, Rank root, std::span<double> values) {
  fold(gather(transport, root, std::as_bytes(values)), values, false);
}

void agree(Transport& transport, const Error* mine) {
  std::string word;
  if (mine != nullptr) word = std::string(1, static_cast<char>('0' + mine->exit_code())) + mine->what();
  const auto all = all_gather(transport, std::as_bytes(std::span(word)));
  const auto unwell = std::ranges::find_if(all, [](const auto& said) { return !said.empty(); });
  if (unwell == all.end()) return;
  std::string text(unwell->size(), ' ');
  std::memcpy(text.data(), unwell->data(), unwell->size());
  const bool everybody = std::ranges::all_of(all, [&](const auto& said) { return said == *unwell; });
  const std::string who = everybody ? "" : sentence("rank ", unwell - all.begin(), ": ");
  throw Error(static_cast<Failure>(text[0] - '0'), who + text.substr(1));
}

}  // namespace annulus

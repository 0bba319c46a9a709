#include "annulus/transport/in_process.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>

namespace annulus {
namespace {

using Clock = std::chrono::steady_clock;

// Which message: from, to, batch, and the how-maniest between the two in that batch.
using Key = std::tuple<Rank, Rank, Index, int>;

// What is left to happen in one batch of one rank, and how the rank hears that nothing is. Each batch tells its own rank
// alone: with P^2 messages to a collective, a word to everybody for each would wake P^3 times.
struct Progress {
  Index open = 0;         // messages not yet copied
  Index busy = 0;         // messages being copied just now by the other side
  bool given_up = false;  // its rank waits for the busy ones alone
  std::condition_variable changed;
};

// One side of a message that waits for the other side.
struct Half {
  std::byte* bytes = nullptr;
  std::size_t length = 0;
  std::shared_ptr<Progress> progress;
  bool lent = false;                 // of a sender: the receiver may read it where it is
  const std::byte** seen = nullptr;  // of a receiver that wants to
};

// The shared memory of all threads: pieces of plain memory, and a list of them.
struct Pieces {
  mutable std::mutex mutex;
  std::map<const std::byte*, Index> bytes;         // by their beginning
  std::vector<std::pair<std::byte*, Index>> left;  // released while somebody may have been reading
  CpuDevice plain;
  Pieces() = default;
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;
  ~Pieces() {
    for (const auto& [memory, length] : left) plain.release(memory, length);
  }
};

}  // namespace

struct Fabric::State {
  mutable std::mutex mutex;
  std::map<Key, Half> sends, recvs;
  std::set<Progress*> waited_for;
  std::shared_ptr<const Error> failure;
  double patience_seconds = 0;
  Pieces pieces;
};

namespace {

// One thread's part of it.
class ThreadMemory final : public SharedMemory {
 public:
  explicit ThreadMemory(std::shared_ptr<Fabric::State> state) : state_(std::move(state)) {}
  std::string name() const override { return "memory of threads"; }
  std::byte* allocate(Index bytes) override {
    std::byte* memory = plain().allocate(bytes);
    const std::lock_guard lock(pieces().mutex);
    pieces().bytes[memory] = bytes;
    return memory;
  }
  void release(std::byte* memory, Index bytes) noexcept override {
    {
      const std::lock_guard lock(pieces().mutex);
      pieces().bytes.erase(memory);
      if (lent_) return pieces().left.emplace_back(memory, bytes), void();
    }
    plain().release(memory, bytes);
  }
  bool holds(const std::byte* memory) const override {
    const std::lock_guard lock(pieces().mutex);
    const auto after = pieces().bytes.upper_bound(memory);
    if (after == pieces().bytes.begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    return memory < begin + bytes;
  }
  void lend() override { lent_ = true; }
  void reclaim() override { lent_ = false; }  // what was left while a rank failed stays until all have ended

 private:
  Pieces& pieces() const { return state_->pieces; }
  std::shared_ptr<Fabric::State> state_;
  bool lent_ = false;
};

void tell_failure(Fabric::State& state, const Error& reason) {
  const std::lock_guard lock(state.mutex);
  if (state.failure == nullptr) state.failure = std::make_shared<Error>(reason);
  for (Progress* progress : state.waited_for) progress->changed.notify_one();
}

void check_failure(const Fabric::State& state) {  // the lock is held
  if (state.failure != nullptr) throw Error(*state.failure);
}

class InProcessBatch final : public Pending::Batch {
 public:
  InProcessBatch(std::shared_ptr<Fabric::State> state, std::shared_ptr<Progress> progress, Index batch)
      : state_(std::move(state)), progress_(std::move(progress)), batch_(batch) {}
  // A batch given up (its rank is failing) takes its halves back, so that nobody touches memory that is about to go.
  ~InProcessBatch() override {
    std::unique_lock lock(state_->mutex);
    if (progress_->open == 0) return;
    const auto mine = [&](const auto& entry) { return entry.second.progress == progress_; };
    std::erase_if(state_->sends, mine);
    std::erase_if(state_->recvs, mine);
    progress_->given_up = true;
    progress_->changed.wait(lock, [&] { return progress_->busy == 0; });
  }
  bool poll() override {
    const std::lock_guard lock(state_->mutex);
    check_failure(*state_);
    return progress_->open == 0;
  }
  void wait() override {
    std::unique_lock lock(state_->mutex);
    const auto done = [&] { return progress_->open == 0 || state_->failure != nullptr; };
    state_->waited_for.insert(progress_.get());
    const bool in_time =
        progress_->changed.wait_for(lock, std::chrono::duration<double>(state_->patience_seconds), done);
    state_->waited_for.erase(progress_.get());
    if (progress_->open == 0) return;
    check_failure(*state_);
    require<Failure::communication>(in_time, "waited ", state_->patience_seconds, " s in batch ", batch_, " for ",
                                    progress_->open, " messages: a rank is lost or far behind");
  }

 private:
  std::shared_ptr<Fabric::State> state_;
  std::shared_ptr<Progress> progress_;
  Index batch_;
};

class InProcess final : public Transport {
 public:
  InProcess(std::shared_ptr<Fabric::State> state, Rank rank, int ranks)
      : state_(std::move(state)), rank_(rank), ranks_(ranks), memory_(state_) {}
  Rank rank() const override { return rank_; }
  int ranks() const override { return ranks_; }
  std::string_view name() const override { return "threads"; }
  SharedMemory* shared() override { return &memory_; }

  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override {
    const Index batch = batches_++;
    auto progress = std::make_shared<Progress>();
    progress->open = static_cast<Index>(sends.size() + recvs.size());
    auto pending = std::make_unique<InProcessBatch>(state_, progress, batch);  // cleans up if posting fails
    std::map<Rank, int> to, from;                                              // how many messages so far
    for (const Send& send : sends) {
      check_rank(send.to);
      // the bytes are only read; Half has one pointer for both sides
      auto* bytes = const_cast<std::byte*>(send.bytes.data());
      const bool lent = send.lent && memory_.holds(send.bytes.data());
      post({rank_, send.to, batch, to[send.to]++}, {bytes, send.bytes.size(), progress, lent}, true);
    }
    for (const Recv& recv : recvs) {
      check_rank(recv.from);
      post({recv.from, rank_, batch, from[recv.from]++},
           {recv.bytes.data(), recv.bytes.size(), progress, false, recv.seen}, false);
    }
    return Pending(std::move(pending));
  }

  void fail(const Error& reason) noexcept override { tell_failure(*state_, reason); }

 private:
  void check_rank(Rank peer) const {
    require<Failure::communication>(peer >= 0 && peer < ranks_, "there is no rank ", peer, " among ", ranks_);
  }

  // Meets the other side of the message if it is there, else leaves this side to be met.
  void post(const Key& key, Half mine, bool sending) {
    Half other;
    {
      const std::lock_guard lock(state_->mutex);
      check_failure(*state_);
      auto& waiting = sending ? state_->recvs : state_->sends;
      const auto found = waiting.find(key);
      if (found == waiting.end()) {
        (sending ? state_->sends : state_->recvs).emplace(key, std::move(mine));
        return;
      }
      other = std::move(found->second);
      waiting.erase(found);
      ++other.progress->busy;
    }
    const Half& from = sending ? mine : other;
    const Half& into = sending ? other : mine;
    if (from.length != into.length) {
      settle(mine, other, 0);
      const Error reason(Failure::communication, sentence("a message from rank ", std::get<0>(key), " to rank ",
                                                          std::get<1>(key), " in batch ", std::get<2>(key), " has ",
                                                          from.length, " bytes where ", into.length, " are expected"));
      tell_failure(*state_, reason);
      throw Error(reason);
    }
    if (from.lent && into.seen != nullptr) {
      *into.seen = from.bytes;
    } else if (from.length > 0) {
      std::memcpy(into.bytes, from.bytes, from.length);
    }
    settle(mine, other, 1);
  }

  // Counts a message as done (copied = 1) or given up (copied = 0).
  void settle(const Half& mine, const Half& other, Index copied) {
    const std::lock_guard lock(state_->mutex);
    mine.progress->open -= copied;
    other.progress->open -= copied;
    --other.progress->busy;
    if (other.progress->open == 0 || other.progress->given_up) other.progress->changed.notify_one();
  }

  std::shared_ptr<Fabric::State> state_;
  Rank rank_;
  int ranks_;
  ThreadMemory memory_;
  Index batches_ = 0;
};

}  // namespace

Fabric::Fabric(int ranks, double patience_seconds) : ranks_(ranks), state_(std::make_shared<State>()) {
  require(ranks >= 1, "there must be at least one rank: ranks = ", ranks);
  state_->patience_seconds = patience_seconds;
}

Fabric::~Fabric() = default;

std::unique_ptr<Transport> Fabric::transport(Rank rank) {
  require(rank >= 0 && rank < ranks_, "there is no rank ", rank, " among ", ranks_);
  return std::make_unique<InProcess>(state_, rank, ranks_);
}

std::shared_ptr<const Error> Fabric::failure() const {
  const std::lock_guard lock(state_->mutex);
  return state_->failure;
}

FaultyTransport::FaultyTransport(std::unique_ptr<Transport> inner, Faults faults)
    : inner_(std::move(inner)), faults_(faults), random_(faults.seed + static_cast<std::uint64_t>(inner_->rank())) {}

Pending FaultyTransport::start(std::span<const Send> sends, std::span<const Recv> recvs) {
  std::uniform_real_distribution<double> chance(0, 1);
  std::this_thread::sleep_for(std::chrono::duration<double>(chance(random_) * faults_.most_delay_seconds));
  std::map<Rank, std::vector<Send>> by_peer;  // order matters only between the same two ranks
  for (const Send& send : sends) by_peer[send.to].push_back(send);
  std::vector<Rank> peers;
  for (const auto& [peer, messages] : by_peer) peers.push_back(peer);
  std::ranges::shuffle(peers, random_);
  std::vector<Send> left;
  for (Rank peer : peers)
    for (const Send& send : by_peer[peer])
      if (chance(random_) >= faults_.loss) left.push_back(send);
  return inner_->start(left, recvs);
}

}  // namespace annulus

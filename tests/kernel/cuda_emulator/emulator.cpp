#include "kernel/cuda_emulator/emulator.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "kernel/cuda_emulator/fiber.hpp"

namespace annulus::emulator {
namespace {

constexpr std::size_t stack_bytes = std::size_t{1} << 18;

struct Thread {
  Fiber fiber;
  Clock clock;
  bool done = false;
  std::string_view waits_for;   // empty: runs, or could
  std::function<bool()> ready;  // set while in wait_until
};

struct Cancelled {};

// Threads [first, first + count) on their way to one collective.
struct Meeting {
  std::string what;
  std::vector<void*> arguments;
  int arrived = 0;
};

struct Named {
  int count = 0, arrived = 0;
  Clock clock;
  std::vector<int> waiting;
};

class Block {
 public:
  Block(const Launch& launch, Dim3 index, const std::function<void()>& body, std::mt19937& random)
      : launch_(launch),
        index_(index),
        body_(body),
        random_(random),
        memory_(launch.shared_bytes),
        threads_(static_cast<std::size_t>(launch.block.x * launch.block.y * launch.block.z)) {
    for (Named& barrier : named_) barrier.clock = Clock(actors());
  }

  void run();
  int count() const { return static_cast<int>(threads_.size()); }
  int actors() const { return count() + 1; }  // and what copies on its own
  const Clock& clock_of(int thread) const { return threads_[static_cast<std::size_t>(thread)].clock; }
  int current() const { return current_; }
  Thread& self() { return threads_[static_cast<std::size_t>(current_)]; }
  SharedMemory& memory() { return memory_; }
  std::mt19937& random() { return random_; }

  void collective(int first, int count, std::string_view what, void* argument,
                  const std::function<void(std::span<void* const>)>& action);
  void synchronise(int first, int count, std::string_view what);
  void named_barrier(int id, int count, bool wait);
  void park(std::string_view what, std::function<bool()> ready);
  void enter();

  std::map<std::type_index, std::any> states;

 private:
  void wake(int thread);
  int next();
  void go_to(int thread);
  void order(int first, int count);
  [[noreturn]] void stuck() const;

  const Launch& launch_;
  Dim3 index_;
  const std::function<void()>& body_;
  std::mt19937& random_;
  SharedMemory memory_;
  std::vector<Thread> threads_;
  std::vector<int> runnable_, polling_;
  std::map<std::pair<int, int>, Meeting> meetings_;
  std::array<Named, 16> named_;
  Fiber caller_;
  int current_ = -1, done_ = 0;
  std::optional<std::string> failure_;
};

Block* running = nullptr;

void entry() {
  Fiber::entered();
  running->enter();
}

void Block::run() {
  running = this;
  for (int t = 0; t < count(); ++t) {
    Thread& thread = threads_[static_cast<std::size_t>(t)];
    thread.clock = Clock(actors());
    thread.clock.of(t) = 1;
    thread.fiber.prepare(entry, stack_bytes);
    runnable_.push_back(t);
  }
  current_ = next();
  go_to(current_);
  caller_.switch_to(self().fiber);
  running = nullptr;
  if (failure_) throw Failure(*failure_);
}

// The life of one thread. After a failure the others are woken only to unwind their stacks.
void Block::enter() {
  Thread& mine = self();
  int to = -1;
  try {
    if (!failure_) body_();
    mine.done = true;
    if (!failure_ && ++done_ < count()) to = next();
  } catch (const Cancelled&) {
  } catch (const std::exception& error) {
    std::ostringstream text;
    text << "block (" << index_.x << ", " << index_.y << ", " << index_.z << ") thread " << current_ << ": "
         << error.what();
    failure_ = text.str();
  }
  mine.done = true;
  if (to < 0) {
    const auto other = std::ranges::find(threads_, false, &Thread::done);
    if (other == threads_.end()) mine.fiber.switch_to(caller_, true);
    to = static_cast<int>(other - threads_.begin());
  }
  current_ = to;
  go_to(to);
  mine.fiber.switch_to(self().fiber, true);
}

void Block::go_to(int thread) {
  const unsigned t = static_cast<unsigned>(thread);
  const Dim3 d = launch_.block;
  grid_dim = launch_.grid;
  block_dim = d;
  block_index = index_;
  thread_index = {t % d.x, t / d.x % d.y, t / d.x / d.y};
}

void Block::wake(int thread) {
  threads_[static_cast<std::size_t>(thread)].waits_for = {};
  runnable_.push_back(thread);
}

// Takes any thread that can go on.
int Block::next() {
  if (!polling_.empty() && (runnable_.empty() || random_() % 8 == 0))
    std::erase_if(polling_, [&](int t) {
      Thread& thread = threads_[static_cast<std::size_t>(t)];
      if (!thread.ready()) return false;
      thread.ready = nullptr;
      wake(t);
      return true;
    });
  if (runnable_.empty()) stuck();
  std::swap(runnable_[random_() % runnable_.size()], runnable_.back());
  const int thread = runnable_.back();
  runnable_.pop_back();
  return thread;
}

void Block::stuck() const {
  std::map<std::string_view, std::pair<int, int>> waits;  // what -> how many, and one of them
  for (int t = 0; t < count(); ++t) {
    const Thread& thread = threads_[static_cast<std::size_t>(t)];
    auto& [many, one] = waits[thread.done ? "nothing, they have returned" : thread.waits_for];
    ++many;
    one = t;
  }
  std::ostringstream text;
  text << "nobody can go on:";
  for (const auto& [what, who] : waits)
    text << " " << who.first << " threads (one is " << who.second << ") wait for " << what << ";";
  throw Failure(text.str());
}

void Block::park(std::string_view what, std::function<bool()> ready) {
  Thread& mine = self();
  mine.waits_for = what;
  if (ready) {
    mine.ready = std::move(ready);
    polling_.push_back(current_);
  }
  const int from = current_;
  const int to = next();
  if (to == from) return;
  current_ = to;
  go_to(to);
  mine.fiber.switch_to(self().fiber);
  if (failure_) throw Cancelled();
}

void Block::collective(int first, int count, std::string_view what, void* argument,
                       const std::function<void(std::span<void* const>)>& action) {
  if (first < 0 || first + count > this->count()) fail(what, " needs threads up to ", first + count);
  Meeting& meeting = meetings_[{first, count}];
  if (meeting.arrived == 0) {
    meeting.what = what;
    meeting.arguments.assign(static_cast<std::size_t>(count), nullptr);
  }
  if (meeting.what != what)
    fail("lanes part ways: this thread is at ", what, ", others of threads ", first, " to ", first + count - 1, " at ",
         meeting.what);
  meeting.arguments[static_cast<std::size_t>(current_ - first)] = argument;
  if (++meeting.arrived < count) {
    park(what, nullptr);
    return;
  }
  meeting.arrived = 0;
  action(meeting.arguments);
  for (int t = first; t < first + count; ++t)
    if (t != current_) wake(t);
}

void Block::order(int first, int count) {
  Clock all(actors());
  for (int t = first; t < first + count; ++t) all.join(threads_[static_cast<std::size_t>(t)].clock);
  for (int t = first; t < first + count; ++t) {
    Clock& clock = threads_[static_cast<std::size_t>(t)].clock;
    clock.join(all);
    ++clock.of(t);
  }
}

void Block::synchronise(int first, int count, std::string_view what) {
  collective(first, count, what, nullptr, [&](std::span<void* const>) { order(first, count); });
}

void Block::named_barrier(int id, int count, bool wait) {
  if (id < 0 || id > 15 || count <= 0 || count % 32 != 0 || count > this->count())
    fail("barrier ", id, " of ", count, " threads");
  Named& barrier = named_[static_cast<std::size_t>(id)];
  if (barrier.arrived == 0) barrier.count = count;
  if (barrier.count != count) fail("barrier ", id, " of ", count, " threads has begun with ", barrier.count);
  release(barrier.clock);
  if (wait) barrier.waiting.push_back(current_);
  if (++barrier.arrived == count) {
    for (const int t : barrier.waiting) {
      threads_[static_cast<std::size_t>(t)].clock.join(barrier.clock);
      if (t != current_) wake(t);
    }
    barrier.waiting.clear();
    barrier.arrived = 0;
    barrier.clock = Clock(actors());
  } else if (wait) {
    park("a named barrier", nullptr);
  }
}

Block& block() {
  if (running == nullptr) fail("no kernel is running");
  return *running;
}

}  // namespace

void launch(const Launch& launch, const std::function<void()>& body) {
  std::mt19937 random(launch.seed);
  std::vector<unsigned> order(launch.grid.x * launch.grid.y * launch.grid.z);
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::shuffle(order, random);
  for (const unsigned b : order) {
    const Dim3 index{b % launch.grid.x, b / launch.grid.x % launch.grid.y, b / launch.grid.x / launch.grid.y};
    Block(launch, index, body, random).run();
  }
}

int thread() { return block().current(); }
int threads() { return block().count(); }
SharedMemory& shared_memory() { return block().memory(); }
const Clock& clock() { return block().self().clock; }
const Clock& clock_of(int thread) { return block().clock_of(thread); }
Clock nothing_seen() { return Clock(block().actors()); }

void release(Clock& into) {
  Clock& mine = block().self().clock;
  into.join(mine);
  ++mine.of(thread());
}
void acquire(const Clock& from) { block().self().clock.join(from); }

void collective(int first, int count, std::string_view what, void* argument,
                const std::function<void(std::span<void* const>)>& action) {
  block().collective(first, count, what, argument, action);
}
void synchronise(int first, int count, std::string_view what) { block().synchronise(first, count, what); }
void named_barrier(int id, int count, bool wait) { block().named_barrier(id, count, wait); }
void wait_until(std::string_view what, const std::function<bool()>& ready) {
  if (!ready()) block().park(what, ready);
}

unsigned random_below(unsigned n) { return static_cast<unsigned>(block().random()() % n); }
std::any& block_state(std::type_index type) { return block().states[type]; }

}  // namespace annulus::emulator

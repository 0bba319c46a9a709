#include "app/stop.hpp"

#include <array>
#include <csignal>
#include <mutex>
#include <vector>

#include "annulus/transport/collectives.hpp"
#include "app/context.hpp"

namespace annulus::app {
namespace {

volatile std::sig_atomic_t asked = 0;  // written by the signal handler

const Error stopped(Failure::stopped, "stopped on request: nothing was written; start it again");

void ask(int /*signal*/) { asked = 1; }

}  // namespace

void catch_stop_signals() {
  static std::once_flag once;  // ranks may be threads
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = ask;
    action.sa_flags = SA_RESTART | SA_RESETHAND;
    for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
  });
}

bool stop_requested() { return asked != 0; }

void throw_stopped() { throw Agreed(stopped); }

void require_not_stopped() {
  if (stop_requested()) throw Error(stopped);
}

void stop_together(Transport& transport) {
  double anybody = stop_requested() ? 1 : 0;
  all_max(transport, {&anybody, 1});
  if (anybody > 0) throw_stopped();
}

struct StoppableTransport::Rounds {
  std::byte mine{0}, theirs{0};  // somebody was asked to stop
  int distance = 1;
  bool under_way = false;  // a byte is riding: the next batches have none
  bool decided = false;
};

namespace {

// The batch the byte rides with.
template <class Rounds>
class Riding final : public Pending::Batch {
 public:
  Riding(Pending inner, Pending byte, std::shared_ptr<Rounds> rounds, int ranks)
      : inner_(std::move(inner)), byte_(std::move(byte)), rounds_(std::move(rounds)), ranks_(ranks) {}
  bool poll() override { return byte_.poll() && inner_.poll(); }
  void wait() override {
    inner_.wait();
    byte_.wait();
    rounds_->under_way = false;
    rounds_->mine |= rounds_->theirs;
    rounds_->distance *= 2;
    if (rounds_->distance < ranks_) return;
    rounds_->decided = rounds_->mine != std::byte{0};
    rounds_->distance = 1;
  }

 private:
  Pending inner_, byte_;
  std::shared_ptr<Rounds> rounds_;
  int ranks_;
};

}  // namespace

StoppableTransport::StoppableTransport(Transport& inner, Transport& host)
    : inner_(inner), host_(host), rounds_(std::make_shared<Rounds>()) {}
StoppableTransport::~StoppableTransport() = default;

Pending StoppableTransport::start(std::span<const Send> sends, std::span<const Recv> recvs) {
  Rounds& rounds = *rounds_;
  if (rounds.decided) throw_stopped();
  if (ranks() == 1 || rounds.under_way) return inner_.start(sends, recvs);
  if (rounds.distance == 1) rounds.mine = static_cast<std::byte>(stop_requested() ? 1 : 0);
  rounds.under_way = true;
  const Send to{
      .to = (rank() + rounds.distance) % ranks(), .bytes = std::span(&rounds.mine, 1), .control = true};
  const Recv from{.from = (rank() - rounds.distance + ranks()) % ranks(),
                  .bytes = std::span(&rounds.theirs, 1),
                  .control = true};
  if (&inner_ != &host_) {
    Pending moving = inner_.start(sends, recvs);
    return Pending(std::make_unique<Riding<Rounds>>(std::move(moving), host_.start({&to, 1}, {&from, 1}), rounds_, ranks()));
  }
  std::vector<Send> more_sends(sends.begin(), sends.end());
  std::vector<Recv> more_recvs(recvs.begin(), recvs.end());
  more_sends.push_back(to);
  more_recvs.push_back(from);
  return Pending(std::make_unique<Riding<Rounds>>(inner_.start(more_sends, more_recvs), Pending(), rounds_, ranks()));
}

}  // namespace annulus::app

#pragma once
#include <memory>

#include "annulus/transport/transport.hpp"

namespace annulus::app {

/// From now on SIGTERM, SIGINT and SIGUSR1 ask for a stop instead of ending the process; a second one of the same kind ends it.
void catch_stop_signals();
bool stop_requested();
/// What stopped ranks throw: exit code 75, and everybody knows.
[[noreturn]] void throw_stopped();
/// The same inside together(), which lets everybody know.
void require_not_stopped();
/// All ranks, between two parts of their work: throw_stopped() on all of them when any was asked to.
void stop_together(Transport& transport);

/// A transport under which all ranks stop together, a few steps after any of them was asked to: a byte rides along with the
/// batches, in rounds of 1, 2, 4 ... ranks' distance, so that after log2(ranks) rounds everybody knows what anybody knew when
/// they began. start() then throws on every rank in the same batch. Ranks must start and wait for batches in the same order.
/// The byte travels by `host`, beside the batches of `inner` when these carry device memory.
class StoppableTransport final : public Transport {
 public:
  StoppableTransport(Transport& inner, Transport& host);
  ~StoppableTransport() override;
  Rank rank() const override { return inner_.rank(); }
  int ranks() const override { return inner_.ranks(); }
  std::string_view name() const override { return inner_.name(); }
  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override;
  SharedMemory* shared() override { return inner_.shared(); }
  void fail(const Error& reason) noexcept override { inner_.fail(reason); }

 private:
  struct Rounds;
  Transport &inner_, &host_;
  std::shared_ptr<Rounds> rounds_;  // shared with the batch under way, which may outlive this object
};

}  // namespace annulus::app

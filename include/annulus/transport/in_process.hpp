#pragma once
#include <memory>
#include <random>
#include <vector>

#include "annulus/transport/transport.hpp"

namespace annulus {

/// The mailboxes between ranks that are threads of one process. Thread-safe; outlives its transports.
/// A message is copied once, straight from the sender's memory into the receiver's, by whichever of the two starts its
/// batch last; so a batch never waits for anything but its partners' start.
class Fabric {
 public:
  /// patience_seconds: how long a wait may last before it fails with Error (communication).
  explicit Fabric(int ranks, double patience_seconds = 600);
  ~Fabric();
  int ranks() const { return ranks_; }
  /// The transport of one rank; to be used by one thread. Throws Error (usage) when there is no such rank.
  std::unique_ptr<Transport> transport(Rank rank);
  /// The first failure told to the fabric by any rank; nullptr when there was none.
  std::shared_ptr<const Error> failure() const;

  struct State;

 private:
  int ranks_;
  std::shared_ptr<State> state_;
};

/// A twin that misbehaves on purpose, for tests: delays every batch at random, starts messages to different peers in
/// random order, and loses some sends altogether (their receivers then run into their deadline).
class FaultyTransport final : public Transport {
 public:
  struct Faults {
    double most_delay_seconds = 0;
    double loss = 0;  ///< probability that a send is lost
    std::uint64_t seed = 1;
  };
  FaultyTransport(std::unique_ptr<Transport> inner, Faults faults);
  Rank rank() const override { return inner_->rank(); }
  int ranks() const override { return inner_->ranks(); }
  std::string_view name() const override { return "faulty"; }
  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override;
  SharedMemory* shared() override { return inner_->shared(); }
  void fail(const Error& reason) noexcept override { inner_->fail(reason); }

 private:
  std::unique_ptr<Transport> inner_;
  Faults faults_;
  std::mt19937_64 random_;
};

}  // namespace annulus

#pragma once
#include <memory>

#include "annulus/timeline/timeline.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus {

/// A transport that writes down what passes through it: every message with its begin and end, every wait ("control": for
/// nothing but agreements; its step is the number of the batch). Both are borrowed. A batch ends when this rank saw its end, in poll() or wait(): later than it did on the wire, never earlier.
class RecordedTransport final : public Transport {
 public:
  RecordedTransport(Transport& inner, Timeline& timeline) : inner_(inner), timeline_(timeline) {}
  Rank rank() const override { return inner_.rank(); }
  int ranks() const override { return inner_.ranks(); }
  std::string_view name() const override { return inner_.name(); }
  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override;
  SharedMemory* shared() override { return inner_.shared(); }
  void fail(const Error& reason) noexcept override { inner_.fail(reason); }

 private:
  Transport& inner_;
  Timeline& timeline_;
  Index batches_ = 0;
};

/// Seconds to add to this rank's timeline to have rank 0's: half-way through the fastest of `rounds` round trips, so it is
/// wrong by at most half of that one. All ranks, with timelines of their own.
double clock_offset(Transport& transport, const Timeline& timeline, int rounds = 16);

}  // namespace annulus

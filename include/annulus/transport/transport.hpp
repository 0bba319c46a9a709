#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/base/types.hpp"
#include "annulus/memory/shared.hpp"

namespace annulus {

struct Send {
  Rank to = 0;
  std::span<const std::byte> bytes;
  /// The bytes stay as they are until recall() has returned, so that who can may read them where they lie. They are lent
  /// only where transport.shared() holds them.
  bool lent = false;
  /// Not rows but what ranks tell one another to agree: for those who write messages down.
  bool control = false;
};
struct Recv {
  Rank from = 0;
  std::span<std::byte> bytes;
  /// When given, bytes that were lent are not copied: after the batch it tells where they lie, until recall(). The caller
  /// sets it to bytes.data(), which it stays when they came into `bytes`.
  const std::byte** seen = nullptr;
  bool control = false;  ///< as of the Send
};

/// A batch under way. Its memory must stay untouched (sends) and unread (receives) until wait() returns.
class Pending {
 public:
  /// What a transport keeps about a batch in flight.
  class Batch {
   public:
    virtual ~Batch() = default;
    /// Makes progress; true when everything has arrived and left.
    virtual bool poll() = 0;
    /// Returns when everything has arrived and left. Throws Error (communication) on a deadline or a failed peer.
    virtual void wait() = 0;
  };
  Pending() = default;
  explicit Pending(std::unique_ptr<Batch> batch) : batch_(std::move(batch)) {}
  bool poll() { return batch_ == nullptr || batch_->poll(); }
  void wait() {
    if (batch_ != nullptr) std::exchange(batch_, nullptr)->wait();
  }

 private:
  std::unique_ptr<Batch> batch_;
};

/// Bytes from rank to rank. Every rank's n-th batch belongs to every other rank's n-th batch; several messages between
/// the same two ranks in one batch arrive in the order given, with lengths that must agree; a rank may send to itself;
/// any 64-bit length, zero included. Several batches may be pending at once. One thread per rank.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual Rank rank() const = 0;
  virtual int ranks() const = 0;
  virtual std::string_view name() const = 0;
  virtual Pending start(std::span<const Send> sends, std::span<const Recv> recvs) = 0;
  /// This rank's memory that neighbours can read where it lies; null where all messages are copied, and then on all ranks.
  virtual SharedMemory* shared() { return nullptr; }
  /// Before fail(), by every rank that fails: whether it is the one that tells people why, having been the first. The
  /// others return later, when it has spoken.
  virtual bool speaks() noexcept { return true; }
  /// Tells everybody that this rank cannot go on: whoever waits for it fails with this reason. Never returns to a hang.
  virtual void fail(const Error& reason) noexcept = 0;
};

/// Where to keep what will be sent: shared memory, or the device where there is none.
inline Device& lending(Transport& transport, Device& device) {
  SharedMemory* shared = transport.shared();
  return shared != nullptr ? *shared : device;
}

}  // namespace annulus

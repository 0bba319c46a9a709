#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "annulus/memory/device.hpp"

namespace annulus {

/// Host memory that the neighbours of a rank (threads of its process, processes of its node) can read where it lies.
/// What cannot be had there is plain memory, which holds() tells.
class SharedMemory : public Device {
 public:
  Place place() const final { return Place::cpu; }
  void zero(std::byte* memory, Index bytes) final { plain_.zero(memory, bytes); }
  void copy(std::byte* to, const std::byte* from, Index bytes) final { plain_.copy(to, from, bytes); }

  /// Whether the neighbours can read what lies here: this rank's, or one of theirs.
  virtual bool holds(const std::byte* memory) const = 0;
  /// From now on they may be reading: what is released before reclaim() is not used again.
  virtual void lend() = 0;
  /// Nobody reads any more.
  virtual void reclaim() = 0;

 protected:
  CpuDevice& plain() { return plain_; }

 private:
  CpuDevice plain_;
};

/// The memory of one process and that of its neighbours on the node, each an anonymous file (memfd) that all of them map:
/// it has no name, so nothing is left behind whoever is killed, and the size of /dev/shm does not matter. Pages are taken
/// from the system when they are allocated, so that a full system is plain memory and never a signal.
class NodeMemory final : public SharedMemory {
 public:
  /// How neighbours find it.
  struct Address {
    std::int64_t process = 0, file = 0;
    std::uint64_t token = 0;
  };
  /// A byte of the memory of the process at `owner`'s place on the node.
  struct Spot {
    std::int64_t owner = 0, offset = 0;
  };
  /// bytes: at most so many at a time; only those in use are taken. Throws Error (runtime) with what the system refuses.
  explicit NodeMemory(Index bytes);
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;
  ~NodeMemory() override;
  Address address() const { return address_; }
  /// Maps the memory of all processes of the node, by place, this one included; their objects must exist until all have
  /// met. Throws Error (runtime) when one cannot be read.
  void meet(std::span<const Address> everybody);

  std::optional<Spot> find(const std::byte* memory) const;
  /// `bytes` bytes there, in this process. Throws Error (communication) when there is no such place.
  const std::byte* at(Spot spot, Index bytes) const;

  std::string name() const override { return "node memory"; }
  std::byte* allocate(Index bytes) override;
  void release(std::byte* memory, Index bytes) noexcept override;
  bool holds(const std::byte* memory) const override { return find(memory).has_value(); }
  void lend() override { lent_ = true; }
  void reclaim() override;

 private:
  struct Mapped {
    const std::byte* begin = nullptr;
    Index bytes = 0;
  };
  struct Idle {
    std::byte* memory = nullptr;
    bool paged = false;  // it has kept its pages
  };
  bool take(const std::byte* memory, Index bytes) const;
  void give_back(const std::byte* memory, Index bytes) const noexcept;
  std::byte* idle_piece(Index bytes);
  std::byte* new_piece(Index bytes);
  void give_back_idle() noexcept;

  int file_ = -1;
  std::byte* begin_ = nullptr;
  Index bytes_ = 0, top_ = 0;  // top: where nothing has been allocated yet
  Address address_;
  std::vector<Mapped> neighbours_;    // by place
  std::map<std::byte*, Index> live_;  // allocated, or held back
  std::vector<std::byte*> held_back_;
  std::multimap<Index, Idle> idle_;  // by length, for the next pass
  Index idle_bytes_ = 0;             // of those with pages
  bool lent_ = false;
};

}  // namespace annulus

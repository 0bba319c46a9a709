#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::emulator {

/// Vector clock: what its owner has seen of each thread of the block. (Lamport, Mattern; as race detectors use it.)
class Clock {
 public:
  explicit Clock(int threads = 0) : seen_(static_cast<std::size_t>(threads)) {}
  std::uint32_t& of(int thread) { return seen_[static_cast<std::size_t>(thread)]; }
  std::uint32_t of(int thread) const { return seen_[static_cast<std::size_t>(thread)]; }
  /// Afterwards everything that the other has seen is seen.
  void join(const Clock& other);

 private:
  std::vector<std::uint32_t> seen_;
};

/// Shared memory of one block, poisoned with NaN, that knows for every two bytes who wrote and read them last, and
/// throws Failure when two accesses, one of them a write, are not ordered by a barrier.
class SharedMemory {
 public:
  /// Where the window of shared addresses begins: not 0, so that an offset taken for an address shows.
  static constexpr std::uint32_t base = 0x8000;

  explicit SharedMemory(std::size_t bytes);
  /// The bytes at a shared address, for reading by thread `by`; checked against bounds and alignment to `bytes`.
  const std::byte* read(std::uint32_t address, std::size_t bytes, int by, const Clock& clock);
  void write(std::uint32_t address, std::size_t bytes, const void* from, int by, const Clock& clock);
  /// A write that lands later, on its own: until land(), the bytes are poison and nobody may touch them.
  void begin_write(std::uint32_t address, std::size_t bytes, int by, const Clock& clock);
  void land(std::uint32_t address, std::size_t bytes, const void* from, int by, const Clock& clock);
  struct Access {
    int thread;
    std::uint32_t time;  // in_flight: not ordered before anything
  };
  /// Who last wrote to the two bytes at an address, -1 if nobody has.
  const Access& writer(std::uint32_t address) const { return cells_[(address - base) / cell_bytes].written; }

 private:
  static constexpr std::uint32_t in_flight = ~std::uint32_t{0};
  static constexpr std::size_t cell_bytes = 2;
  struct Cell {
    Access written{-1, 0};
    std::vector<Access> reads;  // since then, one per thread
  };
  std::size_t place(std::uint32_t address, std::size_t bytes, int by) const;
  void claim(std::size_t at, std::size_t bytes, int by, const Clock& clock, std::uint32_t time);

  std::vector<std::byte> bytes_;
  std::vector<Cell> cells_;
};

}  // namespace annulus::emulator

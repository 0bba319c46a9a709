#include "kernel/cuda_emulator/shared_memory.hpp"

#include <algorithm>
#include <cstring>

#include "kernel/cuda_emulator/emulator.hpp"

namespace annulus::emulator {
namespace {

constexpr std::byte poison{0xff};  // NaN in bf16, f16 and f32

bool ordered(int thread, std::uint32_t time, int by, const Clock& clock) {
  return thread < 0 || (thread == by ? time != ~std::uint32_t{0} : time <= clock.of(thread));
}

}  // namespace

void Clock::join(const Clock& other) {
  for (std::size_t t = 0; t < seen_.size(); ++t) seen_[t] = std::max(seen_[t], other.seen_[t]);
}

SharedMemory::SharedMemory(std::size_t bytes) : bytes_(bytes, poison), cells_((bytes + cell_bytes - 1) / cell_bytes) {}

std::size_t SharedMemory::place(std::uint32_t address, std::size_t bytes, int by) const {
  const std::size_t at = address - base;
  if (address < base || at + bytes > bytes_.size())
    fail("thread ", by, " touches shared bytes [", static_cast<std::int64_t>(address) - base, ", +", bytes, ") of ",
         bytes_.size());
  if (address % std::min<std::size_t>(bytes, 16) != 0)
    fail("thread ", by, " touches ", bytes, " shared bytes at offset ", at, ": not aligned");
  return at;
}

const std::byte* SharedMemory::read(std::uint32_t address, std::size_t bytes, int by, const Clock& clock) {
  const std::size_t at = place(address, bytes, by);
  for (std::size_t c = at / cell_bytes; c * cell_bytes < at + bytes; ++c) {
    Cell& cell = cells_[c];
    if (!ordered(cell.written.thread, cell.written.time, by, clock))
      fail("race: thread ", by, " reads shared byte ", c * cell_bytes, " that thread ", cell.written.thread,
           cell.written.time == in_flight ? " is still copying to" : " wrote, with no barrier between");
    const auto mine = std::ranges::find(cell.reads, by, &Access::thread);
    if (mine == cell.reads.end()) {
      cell.reads.push_back({by, clock.of(by)});
    } else {
      mine->time = clock.of(by);
    }
  }
  return bytes_.data() + at;
}

// Makes `by` the last writer of the bytes, who wrote at `time`.
void SharedMemory::claim(std::size_t at, std::size_t bytes, int by, const Clock& clock, std::uint32_t time) {
  for (std::size_t c = at / cell_bytes; c * cell_bytes < at + bytes; ++c) {
    Cell& cell = cells_[c];
    if (!ordered(cell.written.thread, cell.written.time, by, clock))
      fail("race: thread ", by, " writes shared byte ", c * cell_bytes, " that thread ", cell.written.thread,
           cell.written.time == in_flight ? " is still copying to" : " wrote, with no barrier between");
    for (const Access& read : cell.reads)
      if (!ordered(read.thread, read.time, by, clock))
        fail("race: thread ", by, " writes shared byte ", c * cell_bytes, " that thread ", read.thread,
             " read, with no barrier between");
    cell.reads.clear();
    cell.written = {by, time};
  }
}

void SharedMemory::write(std::uint32_t address, std::size_t bytes, const void* from, int by, const Clock& clock) {
  const std::size_t at = place(address, bytes, by);
  claim(at, bytes, by, clock, clock.of(by));
  std::memcpy(bytes_.data() + at, from, bytes);
}

void SharedMemory::begin_write(std::uint32_t address, std::size_t bytes, int by, const Clock& clock) {
  const std::size_t at = place(address, bytes, by);
  claim(at, bytes, by, clock, in_flight);
  std::memset(bytes_.data() + at, static_cast<int>(poison), bytes);
}

void SharedMemory::land(std::uint32_t address, std::size_t bytes, const void* from, int by, const Clock& clock) {
  const std::size_t at = place(address, bytes, by);
  for (std::size_t c = at / cell_bytes; c * cell_bytes < at + bytes; ++c) cells_[c].written = {by, clock.of(by)};
  std::memcpy(bytes_.data() + at, from, bytes);
}

}  // namespace annulus::emulator

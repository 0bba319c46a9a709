#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "annulus/memory/shared.hpp"

namespace annulus {
namespace {

constexpr Index page = 4096;                   // every piece is whole pages, so that they can be given back
constexpr Index least_shared = 256;            // smaller messages are sent anyway
constexpr Index most_idle = Index{256} << 20;  // larger pieces take longer to use than to allocate

std::string reason() { return std::strerror(errno); }

std::uint64_t random_token() {
  std::random_device random;
  return (std::uint64_t{random()} << 32) | random();
}

void advise(void* memory, Index bytes) {
  madvise(memory, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);  // where the system has them for shared memory
  madvise(memory, static_cast<std::size_t>(bytes), MADV_DONTDUMP);  // a dump of all neighbours by each of them
}

// A file of another process: gone when it is closed.
class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() {
    if (file_ >= 0) close(file_);
  }
  int number() const { return file_; }

 private:
  int file_;
};

}  // namespace

NodeMemory::NodeMemory(Index bytes) : bytes_(ceil_div(bytes, page) * page), top_(page) {
  file_ = memfd_create("annulus", MFD_CLOEXEC);
  require<Failure::runtime>(file_ >= 0, "memfd_create failed: ", reason());
  const bool sized = ftruncate(file_, bytes_) == 0 && fallocate(file_, 0, 0, page) == 0;
  const std::string refusal = reason();
  void* mapped = sized ? mmap(nullptr, static_cast<std::size_t>(bytes_), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_NORESERVE, file_, 0)
                       : MAP_FAILED;
  if (mapped == MAP_FAILED) {
    const std::string why = sized ? reason() : refusal;
    close(file_);
    throw Error(Failure::runtime, sentence("shared memory cannot be had: ", why));
  }
  begin_ = static_cast<std::byte*>(mapped);
  advise(mapped, bytes_);
  address_ = {getpid(), file_, random_token()};
  std::memcpy(begin_, &address_.token, sizeof address_.token);
}

NodeMemory::~NodeMemory() {
  for (const Mapped& other : neighbours_)
    if (other.begin != begin_) munmap(const_cast<std::byte*>(other.begin), static_cast<std::size_t>(other.bytes));
  munmap(begin_, static_cast<std::size_t>(bytes_));
  close(file_);
}

void NodeMemory::meet(std::span<const Address> everybody) {
  for (const Address& other : everybody) {
    if (other.token == address_.token) {
      neighbours_.push_back({begin_, bytes_});
      continue;
    }
    const OpenFile file(sentence("/proc/", other.process, "/fd/", other.file));
    require<Failure::runtime>(file.number() >= 0, "the memory of process ", other.process,
                              " cannot be opened: ", reason());
    const off_t length = lseek(file.number(), 0, SEEK_END);
    require<Failure::runtime>(length >= page, "process ", other.process, " is another one here");
    void* mapped =
        mmap(nullptr, static_cast<std::size_t>(length), PROT_READ, MAP_SHARED | MAP_NORESERVE, file.number(), 0);
    require<Failure::runtime>(mapped != MAP_FAILED, "the memory of process ", other.process,
                              " cannot be read: ", reason());
    neighbours_.push_back({static_cast<const std::byte*>(mapped), length});
    advise(mapped, length);
    std::uint64_t token = 0;
    std::memcpy(&token, mapped, sizeof token);
    require<Failure::runtime>(token == other.token, "process ", other.process, " is another one here");
  }
}

std::optional<NodeMemory::Spot> NodeMemory::find(const std::byte* memory) const {
  for (std::size_t owner = 0; owner < neighbours_.size(); ++owner) {
    const auto& [begin, bytes] = neighbours_[owner];
    if (memory >= begin && memory < begin + bytes) return Spot{static_cast<std::int64_t>(owner), memory - begin};
  }
  return std::nullopt;
}

const std::byte* NodeMemory::at(Spot spot, Index bytes) const {
  const bool known = spot.owner >= 0 && static_cast<std::size_t>(spot.owner) < neighbours_.size();
  const Mapped there = known ? neighbours_[static_cast<std::size_t>(spot.owner)] : Mapped{};
  require<Failure::communication>(known && spot.offset >= 0 && bytes <= there.bytes - spot.offset,
                                  "there is no memory at ", spot.offset, " of process ", spot.owner, " of this node");
  return there.begin + spot.offset;
}

// Pages are taken here, where a refusal is an answer, and not when they are touched, where it would be a signal.
bool NodeMemory::take(const std::byte* memory, Index bytes) const {
  int result = 0;
  do result = fallocate(file_, 0, memory - begin_, bytes);
  while (result != 0 && errno == EINTR);
  return result == 0;
}

void NodeMemory::give_back(const std::byte* memory, Index bytes) const noexcept {
  fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, memory - begin_, bytes);
}

void NodeMemory::give_back_idle() noexcept {
  for (auto& [bytes, piece] : idle_)
    if (std::exchange(piece.paged, false)) give_back(piece.memory, bytes);
  idle_bytes_ = 0;
  if (!live_.empty()) return;
  idle_.clear();
  top_ = page;
}

// The smallest that is large enough and not much too large; null when there is none.
std::byte* NodeMemory::idle_piece(Index bytes) {
  const auto found = idle_.lower_bound(bytes);
  if (found == idle_.end() || found->first > bytes + bytes / 8) return nullptr;
  const auto [length, piece] = *found;
  if (!piece.paged && !take(piece.memory, length)) return nullptr;
  if (piece.paged) idle_bytes_ -= length;
  idle_.erase(found);
  live_[piece.memory] = length;
  return piece.memory;
}

std::byte* NodeMemory::new_piece(Index bytes) {
  std::byte* memory = begin_ + top_;
  if (bytes > bytes_ - top_ || !take(memory, bytes)) return nullptr;
  top_ += bytes;
  live_[memory] = bytes;
  return memory;
}

std::byte* NodeMemory::allocate(Index bytes) {
  if (bytes < least_shared) return plain().allocate(bytes);
  const Index whole = ceil_div(bytes, page) * page;
  if (std::byte* memory = idle_piece(whole)) return memory;
  if (live_.empty()) give_back_idle();
  if (std::byte* memory = new_piece(whole)) return memory;
  give_back_idle();
  std::byte* memory = new_piece(whole);
  return memory != nullptr ? memory : plain().allocate(bytes);
}

void NodeMemory::release(std::byte* memory, Index bytes) noexcept {
  const auto found = live_.find(memory);
  if (found == live_.end()) return plain().release(memory, bytes);
  if (lent_) return held_back_.push_back(memory);
  const Index length = found->second;
  live_.erase(found);
  const bool paged = idle_bytes_ + length <= most_idle;
  if (paged) {
    idle_bytes_ += length;
  } else {
    give_back(memory, length);
  }
  idle_.emplace(length, Idle{memory, paged});
}

void NodeMemory::reclaim() {
  lent_ = false;
  for (std::byte* memory : std::exchange(held_back_, {})) release(memory, 0);
}

}  // namespace annulus

#include "mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus::checkpoint {
namespace {

std::string reason_of(int code) { return std::generic_category().message(code); }

struct Descriptor {
  int file;
  ~Descriptor() {
    if (file >= 0) ::close(file);
  }
};

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  // O_NONBLOCK: opening a named pipe must not wait for its other end.
  const Descriptor opened{::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  require<Failure::file>(opened.file >= 0, path_, ": the file cannot be opened: ", reason_of(errno));
  struct stat status {};
  require<Failure::file>(::fstat(opened.file, &status) == 0, path_, ": ", reason_of(errno));
  require<Failure::file>(S_ISREG(status.st_mode), path_, ": this is not a regular file");
  if (status.st_size == 0) return;
  const auto count = static_cast<std::size_t>(status.st_size);
  void* memory = ::mmap(nullptr, count, PROT_READ, MAP_SHARED, opened.file, 0);
  require<Failure::file>(memory != MAP_FAILED, path_, ": the file cannot be mapped: ", reason_of(errno));
  bytes_ = {static_cast<const std::byte*>(memory), count};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (part.empty() || part.data() < bytes_.data() || part.data() + part.size() > bytes_.data() + bytes_.size()) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto from = static_cast<std::size_t>(part.data() - bytes_.data()) / page * page;
  const auto to = static_cast<std::size_t>(part.data() - bytes_.data()) + part.size();
  // A wish: nothing is lost when it is not granted.
  ::madvise(const_cast<std::byte*>(bytes_.data()) + from, to - from, MADV_DONTNEED);
}

}  // namespace annulus::checkpoint

#include "cache_part.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>

#include "datasets.hpp"
#include "posix.hpp"

namespace annulus::store {
namespace {

/// The datasets' places in the file. HDF5 is gone when this returns: it would lock the file.
Layout layout_of(const std::string& path) {
  const Hdf5Lock lock;
  const Id file = owned(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, path);
  Layout layout{path, {}};
  for (const char* name : {"k", "v", "claimed"})
    layout.datasets.push_back(place_of_rows(file.get(), name, path + ": dataset '" + name + "'"));
  return layout;
}

}  // namespace

Descriptor lock_parts(const std::string& directory) {
  const std::string path = (std::filesystem::path(directory) / "lock").string();
  Descriptor lock(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666));
  if (lock.get() >= 0 && ::flock(lock.get(), LOCK_EX) != 0) return {};
  return lock;
}

bool CachePart::set_claim(Index expected, Index rows) const {
  const Layout layout = layout_of(path_);
  const Layout::Dataset& claimed = layout.find("claimed");
  if (claimed.shape != Shape{{1}, Element::i64} || layout.find("k").shape.dims[0] < rows) return false;
  const Descriptor file(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  const Descriptor lock = lock_parts(std::filesystem::path(path_).parent_path().string());
  if (file.get() < 0 || lock.get() < 0) return false;
  Index found = 0;
  if (::pread(file.get(), &found, sizeof found, claimed.offset) != sizeof found || found != expected) return false;
  return ::pwrite(file.get(), &rows, sizeof rows, claimed.offset) == sizeof rows;
}

bool CachePart::claim(Index added) { return set_claim(rows_, rows_ + added); }

void CachePart::release(Index added) noexcept {
  try {
    set_claim(rows_ + added, rows_);
  } catch (...) {  // then the rows are lost, and nothing else
  }
}

Layout CachePart::reserve(Index added) const {
  Layout layout = layout_of(path_);
  layout.datasets.pop_back();
  const Descriptor file = open_file(path_, O_RDWR);
  for (Layout::Dataset& rows : layout.datasets) {
    rows.offset += rows_ * rows.row_bytes();
    rows.shape.dims[0] = added;
    store::reserve(file.get(), rows.offset, added * rows.row_bytes(), path_);
  }
  return layout;
}

}  // namespace annulus::store

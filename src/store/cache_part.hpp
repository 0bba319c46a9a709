#pragma once
#include <string>

#include "annulus/store/layout.hpp"
#include "posix.hpp"

namespace annulus::store {

/// Waits for the lock on the parts in this directory, which is held until the descriptor is closed. It is on a file of its own:
/// HDF5 holds locks on the parts as long as somebody reads them. Not valid where there is no such lock.
Descriptor lock_parts(const std::string& directory);

/// A part of a cache, to which rows are added in place: a file with k, v [capacity, ...] and claimed [1]. Several hands
/// may want to add behind the same rows (two growths at once, or two copies of the cache that share the part); the one that
/// claims them first may, the others make a part of their own.
class CachePart {
 public:
  CachePart(std::string path, Index rows) : path_(std::move(path)), rows_(rows) {}

  /// Takes `added` rows behind the first `rows`. False, and nothing is changed, when they are taken already, do not fit,
  /// or the file may not be written.
  bool claim(Index added);
  /// Gives them back, unless somebody has taken more since. Never throws.
  void release(Index added) noexcept;
  /// k and v from row `rows` on, `added` rows, their space reserved. Throws Error (fit) when the disk is too small.
  Layout reserve(Index added) const;

 private:
  bool set_claim(Index expected, Index rows) const;

  std::string path_;
  Index rows_;
};

}  // namespace annulus::store

#pragma once
#include <set>
#include <string>

#include "annulus/store/input_file.hpp"
#include "hdf5.hpp"

namespace annulus {

/// The part of InputFile that knows HDF5. Its members expect the caller to hold the Hdf5Lock.
struct InputFile::Opened {
  explicit Opened(const std::string& name);
  ~Opened();
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  std::string what(const std::string& name) const { return path + ": dataset '" + name + "'"; }
  /// Any object; throws when it is missing or behind an external link.
  store::Id object(const std::string& name) const;
  bool has(const std::string& name) const;
  /// Where a soft link of this name leads; empty: it is none.
  std::string soft_link(const std::string& name) const;

  struct Dataset {
    store::Id id;
    Shape shape;
    std::string what;
    bool chunked = false;
    Index offset = -1;  ///< in `descriptor`, where its elements lie one after another as in memory; -1: they do not
  };
  /// A dataset whose shape, type and place in the file have been checked.
  Dataset dataset(const std::string& name) const;
  /// A whole dataset of at most `limit` elements.
  Value whole(const std::string& name, Index limit) const;
  std::vector<std::string> names(const std::string& group) const;

  std::string path;
  Index file_bytes = 0;
  store::Id file, links;
  int descriptor = -1;  ///< that of `file`, which closes it; -1: it has none
  mutable bool met_external_link = false;
};

}  // namespace annulus

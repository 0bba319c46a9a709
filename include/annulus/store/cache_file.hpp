#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"
#include "annulus/store/element.hpp"
#include "annulus/store/input_file.hpp"
#include "annulus/store/layout.hpp"

namespace annulus {

/// One state of a cache: every growth gives its name to a new file. All zero: there is none.
struct CacheMark {
  Index file = 0, nanoseconds = 0;  ///< the system's number for the file, and when it was written
  Index tokens = 0;
  bool operator==(const CacheMark&) const = default;
};

/// Keys and values of earlier tokens, k [tokens, kv_heads, channels] and v [tokens, kv_heads, value_channels], that grow
/// by as much as is added: each row is written once, to one of a few parts beside a small file that names them.
///
///   cache.h5              k, v: views of the parts' rows, one after another (virtual datasets, for h5py and h5dump);
///                         parts/file, parts/rows: the same for CacheFile. Replaced whole, at once, by every growth
///   cache.h5.rows/000.h5  k, v [capacity, ...], of which cache.h5 holds the first rows; claimed: rows that are taken
///   cache.h5.rows/001.h5  as large as all before it, so that there are few
///
/// Rows that a cache holds are never written again. So who reads an older cache.h5 reads what it held, a growth that
/// fails or is killed leaves the cache as it was, and a copy of cache.h5 is a branch: both may grow, and share what
/// they had in common. Any other HDF5 file with k and v may be read as a cache, too; it is rewritten as one when it
/// grows, unless it holds anything else.
/// An open cache, for reading. As InputFile: every rank opens it itself, members are thread-safe and throw Error (file).
class CacheFile {
 public:
  /// Throws Error (file) when it is not a cache, or a part is missing, too short, or of another shape.
  explicit CacheFile(const std::string& path);
  CacheFile(CacheFile&&) noexcept;
  CacheFile& operator=(CacheFile&&) noexcept;
  ~CacheFile();

  const std::string& path() const;
  /// Shape of k or v, all tokens.
  Shape shape(const std::string& name) const;
  /// Rows of k or v, as InputFile::read_rows.
  void read_rows(const std::string& name, std::span<const Run> runs, const Rows& into, const Reading& how = {}) const;
  /// The files beside it that its rows lie in.
  std::vector<std::string> part_files() const;
  /// What it was, or something older, when it was opened.
  const CacheMark& mark() const { return mark_; }

 private:
  friend class CacheGrowth;
  struct Part;

  std::string path_;
  CacheMark mark_;
  std::vector<Part> parts_;
  bool grows_ = false;  ///< made of parts: not any other file with k and v
};

/// Adds tokens to a cache, or makes one. As a Draft:
///
///   one rank     CacheGrowth growth(path, k, v);                 the place of the new rows is reserved here
///   every rank   RowWriter rows(growth.layout()); ...; rows.finish();
///   that rank    growth.hold(); growth.commit();                 now the cache has them
///
/// Without commit() the cache stays as it was. Errors: Error (file), or (fit) when the disk is too small.
class CacheGrowth {
 public:
  /// k, v: the shapes of all keys and values there will be, those that the cache has included. found: the cache whose
  /// tokens were counted for that. Throws when it is another one now, when it is a file that holds more than k and v, or
  /// when it has as many parts as can be read.
  CacheGrowth(const std::string& path, const Shape& k, const Shape& v, const CacheMark& found);
  CacheGrowth(CacheGrowth&&) noexcept;
  CacheGrowth& operator=(CacheGrowth&&) = delete;
  ~CacheGrowth();

  /// Where the rows of the last tokens go, from its row 0 on: as many as it has. These are the new tokens, or all
  /// where the cache was another file or none.
  const Layout& layout() const;
  /// From now on nobody else changes the cache (on file systems with locks). Throws when it has changed since it was
  /// found.
  void hold();
  /// Holds it, if that was not done. Throws, and leaves the cache as it is, when it has grown by another hand meanwhile.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace annulus

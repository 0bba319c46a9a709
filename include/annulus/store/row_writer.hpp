#pragma once
#include <span>
#include <string>

#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"
#include "annulus/store/layout.hpp"

namespace annulus {

/// Writes one rank's rows into a sealed draft, with plain positioned writes and without HDF5: any number of ranks,
/// threads or hosts at the same time, each its own rows, in any order. Errors: Error (file), (fit) for a full disk,
/// each one sentence with the file, the dataset and the system's reason; Error (usage) for shapes that do not match.
class RowWriter {
 public:
  explicit RowWriter(const Layout& layout);
  RowWriter(RowWriter&& other) noexcept;
  RowWriter& operator=(RowWriter&&) = delete;
  ~RowWriter();

  /// Writes rows to the positions of the runs, run after run, converted to the dataset's type (to nearest even; same
  /// types bit by bit). from: CPU rows of any pitch, from.tokens = the rows of all runs; shapes as in
  /// InputFile::read_rows. Needs at most 1 MiB (or one row) beside `from`.
  void write_rows(const std::string& name, std::span<const Run> runs, const Rows& from);
  /// Integers, `per_row` of them densely for each row. A -1 for an unsigned type is an unused place and becomes the
  /// largest value of the type; other values must fit the type.
  void write_integer_rows(const std::string& name, std::span<const Run> runs, std::span<const Index> values,
                          Index per_row);
  /// Waits until everything is on the disk, and closes. The last word on whether the rows were written: some file
  /// systems report a full disk only here. Call it on every rank before commit().
  void finish();

 private:
  void write_at(const Layout::Dataset& dataset, Index row, const std::byte* bytes, Index count);
  void write_run(const Layout::Dataset& dataset, const Run& run, const std::byte* bytes);
  int opened() const;

  Layout layout_;
  int file_ = -1;
  bool wrote_ = false;
};

}  // namespace annulus

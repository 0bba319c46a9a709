#pragma once
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annulus/store/element.hpp"
#include "annulus/store/layout.hpp"

namespace annulus {

/// A dataset that will be. dimension_names: empty, or one name per dimension. Names are labels (h5py: dims[i].label) and
/// scales (dims[i][0]), as netCDF and xarray want them: datasets share the scale of a name with those of the same group and
/// of groups above. One that is named as its only dimension is the scale, and holds the coordinates.
struct DatasetPlan {
  std::string name;  ///< groups are made on the way: "trace/entropy"
  std::vector<Index> dims;
  Element element = Element::f32;
  std::vector<std::string> dimension_names = {};
  std::string units = {}, long_name = {};
};

/// Rows of another file's dataset of the same name: its first `rows`, of the `capacity` it has.
struct RowSource {
  std::string file;  ///< relative to the directory of the file that shows them
  Index rows = 0, capacity = 0;
};

/// A result that does not exist yet: a file under a temporary name beside the final one, made by ONE rank.
///
///   creating rank   Draft draft(path, overwrite); draft.add(...); draft.attribute(...);
///                   Layout layout = draft.seal();                       the space is reserved here
///   every rank      RowWriter rows(layout); rows.write_rows(...); rows.finish();      all at the same time
///   creating rank   draft.write_small(...); draft.commit();             now the file has its final name
///
/// Whoever calls commit() must know that every rank's finish() has returned (a barrier). A draft that is not committed
/// is removed by the destructor; one whose process was killed stays under its temporary name (PATH.partial-...), with
/// the root attribute status = partial, until the next draft of that path on the same machine removes it. Errors: Error (file), or (fit) when the disk is too small.
class Draft {
 public:
  /// Makes the temporary file. The root gets status = partial and created (UTC, ISO 8601).
  /// Throws when the directory cannot be written or, without `overwrite`, when `path` exists.
  explicit Draft(const std::string& path, bool overwrite = false);
  Draft(Draft&&) noexcept;
  Draft& operator=(Draft&&) noexcept;
  ~Draft();

  const std::string& path() const;
  const std::string& temporary_path() const;
  /// Temporary files of killed processes that were found beside it, and removed.
  const std::vector<std::string>& leftovers() const;

  /// Makes the scale of a dimension ("token", "layers/channel") before any dataset has it: for those of its group and of
  /// all groups below. Without this the first dataset makes it, in its own group. Takes no space for data.
  void dimension(const std::string& path, Index length);
  /// Another name for a dataset: a soft link. `to` is a path from the root.
  void link(const std::string& path, const std::string& to);
  /// Declares a dataset whose rows the ranks will write (contiguous, allocated at once, not filled). Before seal()
  /// only. reserved_rows: how many rows seal() reserves the space of (-1: all); the others are holes until written.
  void add(const DatasetPlan& plan, Index reserved_rows = -1);
  /// Declares a dataset of floats whose rows are those of other files, one after another (an HDF5 virtual dataset,
  /// which h5py and h5dump read as any other and InputFile refuses). Before seal() only.
  void add_view(const DatasetPlan& plan, std::span<const RowSource> sources);
  /// Sets an attribute of "/", a group or a dataset; one of the same name is replaced.
  void attribute(const std::string& object, const std::string& name, const Value& value);
  /// Root attributes: schema, version, command line, configuration, ...
  void attributes(std::span<const std::pair<std::string, Value>> values);

  /// Writes a whole small dataset, before seal() or after all rows are written. values: in memory order, as many as
  /// plan.dims say; Index for integer elements, float and double for float elements, text for Element::text.
  void write_small(const DatasetPlan& plan, std::span<const Index> values);
  void write_small(const DatasetPlan& plan, std::span<const float> values);
  void write_small(const DatasetPlan& plan, std::span<const double> values);
  void write_small(const DatasetPlan& plan, std::span<const std::string> values);

  /// Reserves the file's space on the disk and closes it. Returns what the ranks need to write their rows.
  /// Throws Error (fit) with the bytes needed and free.
  Layout seal();
  /// Sets status = complete, flushes to the disk and gives the file its final name, atomically.
  /// Throws, and leaves the final name as it was, when someone else made the file meanwhile and `overwrite` is off.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace annulus

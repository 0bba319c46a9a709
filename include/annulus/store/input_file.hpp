#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"
#include "annulus/store/element.hpp"

namespace annulus {

/// How rows lie in a dataset. Usual: [tokens, heads, channels], or with fewer axes as read_rows says.
struct RowAxes {
  bool heads_first = false;  ///< [heads, tokens, channels]
  Index batch = -1;          ///< the place on one more axis in front, which all others are behind; -1: there is none
  bool operator==(const RowAxes&) const = default;
};
/// "[batch, heads, tokens, channels]"
std::string text_of(const RowAxes& axes);

/// Who reads rows, and who looks at them.
struct Reading {
  int threads = 1;  ///< together, where rows lie in the file as plain bytes; else one
  /// Shown all rows, some at a time, as they come: those which a thread has just read are still in its processor's
  /// cache. They are a part of what is read into, in all its heads. Called by several threads at once; it may throw, and
  /// the error that is thrown is that of the first rows with one.
  std::function<void(const Rows&)> look = {};
};

/// An HDF5 file opened for reading. Every rank opens the file itself and reads its own rows; nothing is exchanged.
/// What is read comes from this file alone: external storage, virtual datasets and external links are refused.
/// Dataset names may have groups in them: "layers/003/out". All members are thread-safe (one process-wide lock: HDF5 is
/// not). All throw Error (file), one sentence that names the file, the dataset, the value and the rule. A file made to
/// harm is checked as far as HDF5's own interface shows it, but HDF5 1.10 is not hardened against hostile files: of 200
/// files with random flipped bits it crashed on 5 and never came back from 1, all in the heap of variable-length text
/// (tests/store/bad_files_test.cpp).
class InputFile {
 public:
  /// Throws Error (file) when the file is missing, not readable, not HDF5, or shorter than its own header says.
  explicit InputFile(const std::string& path);
  InputFile(InputFile&&) noexcept;
  InputFile& operator=(InputFile&&) noexcept;
  ~InputFile();

  const std::string& path() const;
  /// Whether a dataset or a group of this name is in the file.
  bool has(const std::string& name) const;
  /// Throws also for datasets whose data are not all in the file, or whose type is none of Element.
  Shape shape(const std::string& name) const;
  /// The shape of its rows, [tokens, heads, channels], where they lie otherwise. Throws when it has not these axes.
  Shape shape(const std::string& name, const RowAxes& axes) const;

  /// Rows at the positions of the runs, run after run, converted to into.type (to nearest even). The dataset is
  /// [tokens, heads, channels], or [tokens, heads] with channels = 1, or [tokens, channels] with heads = 1; f16, bf16,
  /// f32 or f64. Throws when a finite number is beyond the range of into.type. into: CPU rows of any pitch; into.tokens = the rows of all runs. Needs 1 MiB (or one row)
  /// for each thread beside `into`; of a chunked dataset 64 MiB, or one chunk where that is more.
  /// Nothing but these rows is read, however they lie.
  void read_rows(const std::string& name, std::span<const Run> runs, const Rows& into, const RowAxes& axes = {},
                 const Reading& how = {}) const;
  /// As read_rows for integers: every row's elements, densely. The largest value of an unsigned type comes back as -1
  /// (the mark of an unused place).
  void read_integer_rows(const std::string& name, std::span<const Run> runs, std::span<Index> into) const;

  /// A whole dataset of integers of any width, in memory order. Throws when it has more than `limit` elements.
  std::vector<Index> read_integers(const std::string& name, Index limit = Index{1} << 24) const;
  /// A whole dataset of floats.
  std::vector<double> read_numbers(const std::string& name, Index limit = Index{1} << 24) const;
  /// A whole dataset of text.
  std::vector<std::string> read_texts(const std::string& name, Index limit = Index{1} << 20) const;

  /// An attribute of a dataset or group ("/" is the root). Nothing when there is none of this name.
  std::optional<Value> attribute(const std::string& object, const std::string& name) const;
  /// The attribute as text; throws when it is missing or not text.
  std::string text(const std::string& object, const std::string& name) const;
  /// The attribute as one number, from an integer or a float; throws when it is missing or another thing.
  double number(const std::string& object, const std::string& name) const;
  /// All attributes that are text or numbers, by name. Others (references, compounds) are left out.
  std::vector<std::pair<std::string, Value>> attributes(const std::string& object) const;
  /// The names of a dataset's dimensions; an empty name where it has none.
  std::vector<std::string> dimension_names(const std::string& name) const;

  /// The names in a group, sorted.
  std::vector<std::string> names(const std::string& group = "/") const;
  struct Entry {
    std::string path;
    bool group = false, dataset = false;  ///< neither: a broken or refused link, or a named type
    bool scale = false;                   ///< a dataset that names a dimension, with coordinates or ...
    bool bare_scale = false;              ///< ... without values: it says how long the dimension is
    std::string linked = {};              ///< of a soft link: the path it leads to
  };
  /// Everything below the root, groups before what is in them. Stops after `limit` entries and 32 levels.
  std::vector<Entry> tree(Index limit = 100'000) const;

 private:
  struct Opened;
  std::unique_ptr<Opened> opened_;
};

}  // namespace annulus

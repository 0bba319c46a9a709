#pragma once
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"
#include "app/recompute.hpp"

namespace annulus::app {

/// What a result was made from, and where its datasets lie.
struct Subject {
  RowSource source;
  std::string out, lse, traces;  ///< names in the result; lse may be empty
  bool gradients = false;
  std::shared_ptr<void> keeps = {};  ///< what source.read reads from
  /// What scores may be off by, and values relative to what results are sums of, where inputs are recomputed, too. Asked for when
  /// all has been read.
  std::function<double()> scores_off = {};
  double values_off = 0;
};

/// One line of a verdict: how far a dataset is off, over what it is a sum of.
struct Line {
  std::string what;
  double largest = 0, typical = 0, allowed = 0;
  std::string where = {};  ///< "layers/007", of results with several
  bool fine() const { return largest <= allowed; }
};

struct Verdict {
  std::vector<Line> lines = {};
  std::vector<std::string> need_all = {};  ///< datasets not looked at because only some rows were recomputed
  std::set<std::string> checked = {};      ///< datasets that lines are about
  /// Takes what another one says besides.
  void add(Verdict other);
};

/// Datasets of a file that are not in either list, by their groups where there nothing is.
std::vector<std::string> unchecked(const InputFile& file, const Verdict& verdict);

/// Rows of a dataset: [rows, heads, channels], without the channels where there is one, or with heads side by side.
struct TableShape {
  Index rows = 0, heads = 0, channels = 1;
};
/// Lays some rows beside what they should be: errors over `unit`, of which `allowed` and the rounding of what is stored are fine.
/// Throws Error (file) naming the dataset when it has another shape or type.
Line compare_rows(const InputFile& file, const std::string& name, const std::vector<Index>& rows, const TableShape& table,
                  std::span<const double> exact, double unit, double allowed);

/// What has to be recomputed to judge these rows. Throws Error (file) naming the dataset when the top keys are no list.
RecomputeChoice recompute_choice(const InputFile& file, const Subject& subject, std::vector<Index> rows);

/// Lays the result beside what was recomputed. Throws Error (file) naming a dataset that has another shape or type.
Verdict judge(const InputFile& file, const Subject& subject, const RecomputeChoice& choice, const Recomputed& exact);

}  // namespace annulus::app

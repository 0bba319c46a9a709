#pragma once
#include <memory>
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
};

/// One line of a verdict: how far a dataset is off, over what it is a sum of.
struct Line {
  std::string what;
  double largest = 0, typical = 0, allowed = 0;
  bool fine() const { return largest <= allowed; }
};

struct Verdict {
  std::vector<Line> lines;
  std::vector<std::string> need_all;   ///< datasets not looked at because only some rows were recomputed
  std::vector<std::string> unchecked;  ///< datasets, or groups, that are not recomputed at all
};

/// What has to be recomputed to judge these rows. Throws Error (file) naming the dataset when the top keys are no list.
RecomputeChoice recompute_choice(const InputFile& file, const Subject& subject, std::vector<Index> rows);

/// Lays the result beside what was recomputed. Throws Error (file) naming a dataset that has another shape or type.
Verdict judge(const InputFile& file, const Subject& subject, const RecomputeChoice& choice, const Recomputed& exact);

}  // namespace annulus::app

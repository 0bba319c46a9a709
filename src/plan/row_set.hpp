#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "annulus/geometry/range.hpp"

namespace annulus {

/// Collects rows; those that come in order are united at once, and the others at the end.
class RowSet {
 public:
  explicit RowSet(std::vector<Range>& into) : into_(into) { into_.clear(); }
  void add(Range more) {
    if (more.empty()) return;
    if (more.begin >= open_.begin && more.begin <= open_.end && !open_.empty()) {
      open_.end = std::max(open_.end, more.end);
      return;
    }
    if (!open_.empty()) into_.push_back(open_);
    open_ = more;
  }
  void finish() {
    if (!open_.empty()) into_.push_back(open_);
    for (std::size_t i = 1; i < into_.size(); ++i)
      if (into_[i].begin <= into_[i - 1].end) {
        into_ = united(std::move(into_));
        return;
      }
  }

 private:
  std::vector<Range>& into_;
  Range open_;
};

}  // namespace annulus

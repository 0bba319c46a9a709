#pragma once
#include <map>
#include <vector>

#include "annulus/geometry/range.hpp"

namespace annulus {

/// Lists of rows by number: at thousands of ranks nearly all blocks are seen alike. A list that nobody holds is forgotten.
class RowLists {
 public:
  /// The number of a list, held by so many more.
  int hold(const std::vector<Range>& rows, int holders) {
    const auto [found, fresh] = numbers_.try_emplace(rows, 0);
    if (fresh && free_.empty()) {
      found->second = static_cast<int>(lists_.size());
      lists_.emplace_back();
    } else if (fresh) {
      found->second = free_.back();
      free_.pop_back();
    }
    List& list = lists_[static_cast<std::size_t>(found->second)];
    if (fresh) list = {&found->first, annulus::count(rows), 0};
    list.holders += holders;
    return found->second;
  }
  void release(int number, int holders) {
    List& list = lists_[static_cast<std::size_t>(number)];
    if ((list.holders -= holders) > 0) return;
    numbers_.erase(numbers_.find(*list.rows));
    free_.push_back(number);
  }
  const std::vector<Range>& rows(int number) const { return *lists_[static_cast<std::size_t>(number)].rows; }
  Index count(int number) const { return lists_[static_cast<std::size_t>(number)].count; }

 private:
  struct List {
    const std::vector<Range>* rows = nullptr;
    Index count = 0, holders = 0;
  };
  struct Before {
    bool operator()(const std::vector<Range>& a, const std::vector<Range>& b) const {
      return std::ranges::lexicographical_compare(
          a, b, [](Range x, Range y) { return x.begin != y.begin ? x.begin < y.begin : x.end < y.end; });
    }
  };
  std::map<std::vector<Range>, int, Before> numbers_;
  std::vector<List> lists_;
  std::vector<int> free_;
};

}  // namespace annulus

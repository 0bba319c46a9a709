#pragma once
#include <algorithm>
#include <vector>

#include "annulus/plan/plan.hpp"
#include "plan/strided.hpp"

namespace annulus {

/// So many neighbouring seats, `stride` apart, each with a block; those of the blocks are as far apart.
struct Span {
  Rank seat = 0, origin = 0;
  int stride = 1, count = 1;
};

/// Finds neighbours that see the same of their blocks: shards of the same shape whose runs lie at distances at which
/// everything or nothing is seen, or at the same distance; in masks of many regions, strided runs at the same
/// distance with the same rows in each. At thousands of ranks nearly all are alike, so they are looked at
/// once. Exact: how far apart two runs are changes evenly along a span, and the distances at which they see each other
/// whole, or not at all on one side, are intervals; so what holds at both ends holds between.
class Spans {
 public:
  /// tiles: of the planner; both must outlive this. lists: may list who works, where they are few; else for_row() gives all seats.
  Spans(const Planner& planner, const StridedTiles& tiles, bool lists = true);

  /// Calls at(span) for all seats of one step of the itinerary, as visit() says, or for those alone that may work.
  template <class At>
  void for_row(int step, const At& at) const {
    if (!first_.empty()) {
      for (auto i = first_[static_cast<std::size_t>(step)]; i < first_[static_cast<std::size_t>(step) + 1]; ++i)
        at({users_[i], visit(planner_.grid(), step, users_[i]), 1, 1});
      return;
    }
    const int turn = step / inner_, hop = step % inner_, outer = seats_ / inner_;
    if (stride_ == 1) {
      for (int ring = 0, from = turn == 0 ? 0 : outer - turn; ring < outer;
           ++ring, from = from + 1 == outer ? 0 : from + 1) {
        split({ring * inner_, from * inner_ + inner_ - hop, 1, hop}, at);
        split({ring * inner_ + hop, from * inner_, 1, inner_ - hop}, at);
      }
      return;
    }
    for (int place = 0, back = hop == 0 ? 0 : inner_ - hop; place < inner_;
         ++place, back = back + 1 == inner_ ? 0 : back + 1) {
      split({place, (outer - turn) * inner_ + back, inner_, turn}, at);
      split({turn * inner_ + place, back, inner_, outer - turn}, at);
    }
  }

 private:
  template <class At>
  void split(Span all, const At& at) const {
    while (all.count > 0) {
      Span part = all;
      part.count = std::min(
          {all.count, stay_[static_cast<std::size_t>(all.seat)], travel_[static_cast<std::size_t>(all.origin)]});
      while (!alike(part)) part.count = (part.count + 1) / 2;
      at(part);
      all.seat += part.count * all.stride;
      all.origin += part.count * all.stride;
      all.count -= part.count;
    }
  }
  bool alike(const Span& span) const;
  void list_users();
  template <class Same>
  std::vector<int> stretches(const Partition& partition, const Same& same_rows) const;

  const Planner& planner_;
  const StridedTiles& tiles_;
  int seats_, inner_, stride_;
  std::vector<std::size_t>
      first_;  // where the users of each step of the itinerary begin, where few seats have work in most
  std::vector<Rank> users_;
  std::vector<int> stay_, travel_;  // by seat: how many neighbours, itself included, have its shape and move on evenly
};

}  // namespace annulus

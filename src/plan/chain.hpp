#pragma once
#include "annulus/plan/plan.hpp"
#include "plan/sight.hpp"

namespace annulus {

/// One seat working on one block at one step.
struct Use {
  int step = 0;
  Rank seat = nobody;  ///< nobody: there is no such use
  std::vector<Range> rows;
  bool exists() const { return seat != nobody; }
};

/// Finds the uses of one block before and after a given one, each decided by looking at two seats only.
class Chain {
 public:
  Chain(const Planner& planner, Rank origin) : planner_(planner), origin_(origin) {}

  /// The next use after step `from`, not later than step `to`.
  Use after(int from, int to) {
    for (int s = from + 1; s <= to && s < planner_.steps(); ++s)
      if (Use use = at(s); use.exists()) return use;
    return {};
  }
  /// The last use before step `from`; the owner's own at step 0 does not count.
  Use before(int from) {
    for (int s = from - 1; s > 0; --s)
      if (Use use = at(s); use.exists()) return use;
    return {};
  }
  /// Whether the user of the block can hand it to the next one: it holds the rows, and needs its buffer no earlier.
  bool linked(const Use& use, const Use& next) {
    if (!use.exists() || !next.exists() || !inside(next.rows, use.rows)) return false;
    for (int s = use.step + 1; s < next.step; ++s)
      if (busy(s, use.seat)) return false;
    return true;
  }

 private:
  Use at(int s) {
    const Rank seat = host(planner_.grid(), planner_.visits(s).front(), origin_);
    planner_.look(seat, origin_, sight_);
    if (sight_.none()) return {};
    return {s, seat, sight_.rows};
  }
  bool busy(int s, Rank seat) {
    planner_.look(seat, visit(planner_.grid(), planner_.visits(s).front(), seat), sight_);
    return !sight_.none();
  }
  const Planner& planner_;
  Rank origin_;
  Sight sight_;
};

}  // namespace annulus

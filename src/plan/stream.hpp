#pragma once
#include <vector>

#include "annulus/plan/cost.hpp"
#include "annulus/plan/prediction.hpp"
#include "plan/clock.hpp"
#include "plan/pace.hpp"
#include "plan/passes.hpp"
#include "plan/recorder.hpp"
#include "plan/row_lists.hpp"
#include "plan/sight.hpp"
#include "plan/spans.hpp"
#include "plan/strided.hpp"

namespace annulus {

/// What is written down, if anything: of which passes, and how the first of them begins.
struct Recording {
  Prediction* into = nullptr;
  bool forward = true;
  Recorder::Start start = {};
};

/// The plans of all seats, step by step, told to a counter and to a clock for each pass.
class Stream {
 public:
  Stream(const Schedule& job, const Prices& prices, const Passes& passes, const Recording& recording);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  /// What happened in each pass; empty where nobody asked.
  const std::vector<Recorder>& recorders() const { return recorders_; }

  /// Counts, and the times of the steps alone.
  void run(Estimate& e);

  Index received = 0, merged = 0;        // rows of visiting blocks and of partial results, of all seats
  Index crossed = 0, merged_across = 0;  // those of them that came from another node
  /// Bytes that one lane of each seat receives, in the passes from this one on (0: forward, if there is one).
  std::vector<double> bytes_received(std::size_t first_pass) const;

 private:
  struct Seat {
    Index pairs = 0, rows = 0, all_pairs = 0;
    int busy = 0;  // the last step in which it worked
    bool here = false;
  };
  struct Block {
    int step = 0;  // of its last use by a visitor
    Rank user = nobody;
    int rows = 0;  // in lists_; of no meaning without a user
    bool operator==(const Block&) const = default;
  };
  struct Home {
    Messages messages;
    Index rows;
  };

  static std::size_t index(Rank seat) { return static_cast<std::size_t>(seat); }
  bool across(Rank a, Rank b) const { return !nodes_.empty() && nodes_[index(a)] != nodes_[index(b)]; }

  void add(Rank rank, Index pairs, Index rows) {
    Seat& seat = seats_[index(rank)];
    if (!seat.here) here_.push_back(rank);
    seat.here = true;
    seat.pairs += pairs;
    seat.rows += rows;
  }
  void gather_all();
  void look(Rank seat, Rank origin);
  void meet(const Span& span);
  void arrive(const Messages& m, Index rows);
  void pass_on(const Span& span, Index rows);
  void pass_on_alike(Span span, Index rows);
  void leave(const Span& span, const Block& before, Index riding);
  void go_home();
  void last_homes();
  void end_step(Estimate& e, int first);
  int steps_alike() const { return grid_.travel == Travel::tree ? 1 : alike_; }
  void merge();
  void record_merge(std::size_t round);

  const Planner& planner_;
  const Grid grid_;
  const Paces paces_;
  StridedTiles tiles_;
  const Spans spans_;
  bool with_sums_ = false;
  int step_ = 0, every_ = 1, alike_ = 1;  // of so many steps one is looked at; how many this one stands for
  std::vector<Clock> clocks_;             // forward, and backward where it is asked for
  std::vector<Recorder> recorders_;       // of each of them, or none
  std::vector<Seat> seats_;
  std::vector<Rank> here_;        // those with work or rows in the step that comes
  std::vector<double> slowness_;  // of seats
  Index most_looks_;
  std::vector<Block> blocks_;  // by owner
  std::vector<Rank> nodes_;    // of seats, where there are several
  RowLists lists_;
  std::vector<Home> homes_;
  Sight sight_;
};

}  // namespace annulus

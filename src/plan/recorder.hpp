#pragma once
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "annulus/plan/plan.hpp"
#include "annulus/plan/prediction.hpp"
#include "plan/passes.hpp"
#include "plan/spans.hpp"

namespace annulus {

/// Writes down what a Clock goes through in one pass, for the seats of the first ranks. The clock tells it what it is told itself, with
/// the times; Stream adds whose blocks are worked on. Nobody else's seats are looked at, so memory grows with what is recorded.
class Recorder {
 public:
  /// of so many ranks; steps: of the plan; with_sums: a step has two batches
  Recorder(const Grid& grid, int ranks, int steps, bool with_sums);

  /// How many of the first seats are recorded.
  Rank seats() const { return static_cast<Rank>(parts_.size()); }

  /// The owners of the blocks that these seats work on in the step that comes.
  void blocks(const Span& span);
  /// In the batch of blocks of the step that is, or `late` in that of the sums that follow it: begun by its sender and its receiver.
  struct Side {
    Rank seat;
    double begins;
  };
  void message(bool late, const Side& from, const Side& to, double bytes);
  /// The seat's batch is there now, or later.
  void arrived(Rank seat, double seconds);
  /// It has waited until then.
  void waited(Rank seat, double until);
  /// It computes until `computed`, and clears and adds until it has done.
  void works(Rank seat, double ready, double computed, double done);
  /// All seats have gone on to the next step.
  void step();

  /// In the round of merges that comes.
  void merge_message(Rank from, Rank to, Index rows) {
    if (rows > 0) round_.push_back({from, to, rows});
  }
  /// Everybody exchanges what merge_message() told.
  void merge(double begins, double ends, double row_bytes);
  void end(double seconds);

  /// Appends the pass, one of these, with its exchanges of heads. Returns the number of the next pass's first batch.
  struct Start {
    double begins = 0;  ///< seconds after the first pass
    Index batch = 0;    ///< the number of its first
  };
  Index write(const Schedule& job, const Passes& passes, const Passes::Pass& pass, const Start& start,
              Prediction& into) const;

 private:
  struct Flight {
    Side from, to;
    Index bytes, batch;
    int place;
  };
  struct Round {
    Rank from, to;
    Index rows;
  };
  struct Part {
    Prediction::OfRank of_lane;  // the lanes of a seat do the same; peers are seats
    Rank origin = nobody;        // in the step that comes
    double arrived = 0;          // when all of its batch is there
  };
  Part* part(Rank seat) { return seat < seats() ? &parts_[static_cast<std::size_t>(seat)] : nullptr; }
  void land(const Flight& flight, double sent, double received);
  Index step_of(int step) const;

  int heads_, ranks_, steps_;
  bool with_sums_;
  int step_ = -1;  // in which the seats are
  std::vector<Part> parts_;
  std::vector<Flight> now_, later_;
  std::map<std::pair<Rank, Rank>, int> places_now_, places_later_;  // of the batches that are told
  std::vector<Round> round_;
  Index batches_ = 0;
  double seconds_ = 0;
};

}  // namespace annulus

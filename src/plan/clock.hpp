#pragma once
#include <span>
#include <vector>

#include "annulus/plan/cost.hpp"

namespace annulus {

class Recorder;

/// So many messages of the same size between neighbours, `stride` apart on both sides.
struct Messages {
  Rank to = 0, from = 0;
  int stride = 1, count = 1;
};

/// The node of each seat's first rank; empty when all ranks share one.
std::vector<Rank> nodes_of(const Grid& grid, const Prices& prices);

/// When each seat is where, in one pass. What happens is told step by step, in the order of the engine's batches: while the
/// seats are in step s - 1,
///   block   rows come here for step s, in the batch of step s - 1: sent when both are in that step, waited for at its end
///   sums    what follows a block leaves when its sender has computed step s - 1, and is waited for at the end of step s
///   home    the same, to the owner of the block
///   work    what the seat computes in step s
/// and then step() lets everybody go on to step s. A seat stands for its lanes, which do the same at the same time.
///
///          step s - 1              step s                    step s + 1
///   seat   |- work ----|.wait..|- work -----|.wait...|- work ...
///   block  |==========>|       |=============>|                   (beside computing as far as the link hides it)
///   sums               |================>|
class Clock {
 public:
  /// bytes of a row of a block and of the sums that follow it, at one lane.
  Clock(const Prices& prices, const Grid& grid, Index block_bytes, Index sum_bytes);

  /// Who hears what happens when; nobody unless it is said. It must outlive the clock.
  void record(Recorder* recorder) { recorder_ = recorder; }
  bool with_sums() const { return sum_bytes_ > 0; }
  /// What is told from now on happens so many times, in as many steps that are alike.
  void repeat(int steps) { steps_ = steps; }
  void block(const Messages& messages, Index rows);
  void sums(const Messages& messages, Index rows);
  /// of seats first, first + stride, ...; seconds: of a rank of mean speed; held_rows: what follows them is cleared first.
  void work(Rank first, int stride, int count, double seconds, Index held_rows);
  /// The block of every seat goes to all others at once.
  void gather_all(std::span<const Index> rows);
  void step();
  /// Everybody waits for the slowest, and then for one more exchange of so many rows of sums.
  void merge(Index most_rows, bool across);
  PassTime end();
  /// Rows of sums that the seat receives in the rounds of merge().
  void merges(Rank seat, Index rows) { seats_[index(seat)].received += static_cast<double>(rows) * sum_bytes_; }
  /// Bytes that one lane of the seat has received.
  double received(Rank seat) const { return seats_[index(seat)].received; }

 private:
  // Seconds of one lane in one step on one kind of link: what arrives, with its latency, what leaves, and the longest latency.
  // Between nodes messages are on their way together; inside one their latency is work, one after the other.
  struct Traffic {
    double in = 0, out = 0, latency = 0;
  };
  // What is waited for at the end of a step: who sends (the last to do so), and when all of them had begun and had computed.
  struct Load {
    Traffic near, far;
    double sent = 0, computed = 0;
    Rank source = nobody;
  };
  struct Seat {
    double ready = 0, done = 0, next = 0;  // when its step began, when it has computed, when the next begins
    double work = 0, extra = 0;            // computing, and clearing and adding, in the step that comes
    double compute = 0;                    // all computing so far
    double slowness = 1;                   // times what a rank of mean speed takes
    double received = 0;                   // bytes at one lane
    bool awake = false, later = false;     // concerned by this step or the next; by sums that come in the next
  };
  static std::size_t index(Rank seat) { return static_cast<std::size_t>(seat); }
  Seat& wake(Rank rank) {
    Seat& seat = seats_[index(rank)];
    if (!seat.awake) awake_.push_back(rank);
    seat.awake = true;
    return seat;
  }
  void go_on(Seat& seat);
  void send(std::vector<Load>& loads, const Messages& messages, double bytes, double Seat::*sent);
  void record(const Messages& messages, double bytes, bool late);
  void record_gathering(std::span<const Index> rows);
  void record_arrival(std::size_t seat, double near, double across);
  void record_step();
  void share_cores();
  void share_ports();
  template <bool recorded>
  void wait(std::size_t seat);

  std::vector<Seat> seats_;
  std::vector<Rank> awake_;  // whom this step or the next may concern; the others are ready and have nothing to do
  std::vector<Load> now_, later_;  // by seat: of this step, and of the one that comes
  std::vector<Rank> nodes_;        // of seats, where there are several
  LinkPrice near_, far_;
  double block_bytes_, sum_bytes_, seconds_per_byte_, steps_ = 1;
  int heads_, ranks_per_node_, workers_, ports_, ranks_here_;
  std::vector<double> out_, in_;  // of nodes
  Recorder* recorder_ = nullptr;
};

}  // namespace annulus

#pragma once
#include <vector>

#include "annulus/plan/cost.hpp"

namespace annulus {

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

  bool with_sums() const { return sum_bytes_ > 0; }
  void all_begin(double seconds);
  void block(Rank to, Rank from, Index rows);
  void sums(Rank to, Rank from, Index rows);
  void home(Rank owner, Rank from, Index rows);
  void work(Rank seat, double seconds, Index held_rows);
  /// The block of every seat goes to all others at once.
  void gather_all(std::span<const Index> rows);
  void step();
  /// Everybody waits for the slowest, and then for one more exchange of so many rows of sums.
  void merge(Index most_rows, bool across);
  PassTime end();

 private:
  // Seconds of one lane in one step on one kind of link: bytes, and the latencies of what arrives.
  struct Traffic {
    double in = 0, out = 0, latency = 0;
    bool any() const { return in > 0 || out > 0; }
  };
  // Who sends (the last to do so), and when all of them were in this step and had computed.
  struct Load {
    Traffic near, far;
    Rank source = nobody;
    double sent = 0, computed = 0;
  };
  struct Seat {
    double ready = 0, busy = 0,
           next = 0;             // when its step began; what it computes, clears and adds in it; when the next begins
    double work = 0, extra = 0;  // computing, and clearing and adding, in the step that comes
    double compute = 0;          // all computing so far
    Load now, later;             // what is waited for at the end of this step, and of the one that comes
  };
  Seat& at(Rank seat) { return seats_[static_cast<std::size_t>(seat)]; }
  Index node_of(Rank seat) const { return Index{seat} * heads_ / ranks_per_node_; }
  void send(Load Seat::*when, Rank to, Rank from, double bytes, double sent);
  void share_cores();
  void share_ports();
  void wait(Seat& seat);

  std::vector<Seat> seats_;
  LinkPrice near_, far_;
  double block_bytes_, sum_bytes_, seconds_per_byte_;
  int heads_, ranks_per_node_, workers_, ports_, ranks_here_;
  bool several_nodes_;
  std::vector<double> out_, in_;  // of nodes
};

}  // namespace annulus

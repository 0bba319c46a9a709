#pragma once
#include <array>
#include <functional>

#include "annulus/memory/device.hpp"
#include "annulus/plan/plan.hpp"
#include "annulus/timeline/timeline.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus {

/// Where a seat's lane finds its peers: the rank with the same lane in another seat.
struct Lane {
  int heads = 1, lane = 0;
  Rank rank(Rank seat) const { return seat * heads + lane; }
};

/// Whether other seats are given rows of the own block.
bool own_block_leaves(const Plan& plan);

/// Takes blocks of rows around the seats as a plan says, while work is done on them: each step the present block leaves
/// and the next arrives while `work` computes. `own` holds the seat's rows [own_rows, 1, width]; where it does not leave it
/// may be absent, but for its shape. Two buffers for visitors are allocated once. work(step, block, pending) is called for
/// every step, also for those without tiles, so that batches started in it have the same number on all ranks; it may poll
/// `pending` to let the exchange progress. home() is called after the last step, before what was lent is taken back.
using Work = std::function<void(std::size_t step, const Rows& block, Pending& pending)>;
void circulate(const Plan& plan, Lane lane, const Rows& own, Device& device, Transport& transport, Timeline& timeline,
               const Work& work, const std::function<void()>& home = {});

/// How what follows a block is summed up: what a row is before anything was added, and the addition.
struct Summation {
  std::function<void(const Rows&)> clear;
  std::function<void(const Rows& from, const Rows& into)> add;
};
/// Zero, and f32 or f64 sums.
Summation plain_sums(Device& device);

/// Sums per row (gradients, received mass, partial results of queries) that follow their block around the seats one step
/// behind and come home. For every step of the plan, in order: begin(step) gives the rows to add to, end(step) sends them
/// after the block. `own` [own_rows, 1, width], f32 or f64, dense, holds the seat's sums; it is complete after home().
/// What leaves last is lent, so home() belongs before the recall: circulate(..., home).
class Trail {
 public:
  Trail(const Plan& plan, Lane lane, const Rows& own, Device& device, Transport& transport, Timeline& timeline,
        Summation summation);
  /// Rows [held rows, 1, width] to accumulate into, cleared at first.
  Rows begin(std::size_t step);
  void end(std::size_t step);
  void home();

 private:
  void settle();             // waits for the batch under way and adds what came home
  void join(std::size_t s);  // adds what rode here with the present block
  void add_piece(std::size_t i, const Rows& into);
  const Plan& plan_;
  Lane lane_;
  Rows own_;
  Transport& transport_;
  Timeline& timeline_;
  Summation summation_;
  Array mine_, leaving_, arriving_, returning_;  // leaving_ stays untouched while its batch is under way
  std::size_t lent_from_ = 0;                    // steps from here on leave buffers that nobody uses again
  std::vector<Recv> recvs_;  // of the batch under way: pieces that ride here, then those that come home
  std::vector<const std::byte*> seen_;
  Pending pending_;
  const Step* sent_ = nullptr;  // the step whose batch is under way
};

}  // namespace annulus

#include "annulus/engine/carousel.hpp"

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

// The pieces of a block as messages: one per range of rows.
void add_sends(std::vector<Send>& sends, Rank to, const Rows& here, const std::vector<Move>& held, Rank owner,
               const std::vector<Range>& rows) {
  for (const Range& range : rows) {
    const Range local = within(held, owner, range);
    sends.push_back({to, here.span(local.begin, local.end)});
  }
}

// Rows arrive in the same pieces and lie close together, block after block.
void add_recvs(std::vector<Recv>& recvs, Lane lane, const Rows& into, const std::vector<Move>& moves) {
  Index at = 0;
  for (const Move& move : moves)
    for (const Range& range : move.rows) {
      recvs.push_back({lane.rank(move.seat), into.span(at, at + range.count())});
      at += range.count();
    }
}

// The own block, as what is held in step 0.
std::vector<Move> whole(const Plan& plan) { return {{plan.seat, united({{0, plan.own_rows}})}}; }

}  // namespace

void circulate(const Plan& plan, Lane lane, const Rows& own, Device& device, Transport& transport, Timeline& timeline,
               const Work& work) {
  const std::vector<Move> mine = whole(plan);
  const Index most = plan.buffer_rows();
  std::array<Array, 2> buffers;
  for (Array& buffer : buffers) buffer = Array(device, own.type, most, own.heads, own.channels);
  Rows here = own, next = buffers[0], spare = buffers[1];
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    if (step.forward)
      add_sends(sends, lane.rank(step.forward->seat), here, step.held, step.origin(), step.forward->rows);
    for (const Move& loan : step.lend) add_sends(sends, lane.rank(loan.seat), own, mine, plan.seat, loan.rows);
    add_recvs(recvs, lane, next, step.arrive);
    Pending moving = transport.start(sends, recvs);
    work(s, here.slice(0, count(step.held)), moving);
    {
      const Timeline::Span span(timeline, "wait", static_cast<Index>(s));
      moving.wait();
    }
    if (step.arrive.empty()) continue;
    // the own block is never overwritten; a visitor's buffer becomes free when the next one has arrived
    const Rows free = here.data == own.data ? spare : here;
    here = next;
    next = free;
  }
}

Summation plain_sums(Device& device) {
  return {[&device](const Rows& rows) { device.clear(rows); },
          [&device](const Rows& from, const Rows& into) { device.add(from, into); }};
}

Trail::Trail(const Plan& plan, Lane lane, const Rows& own, Device& device, Transport& transport, Timeline& timeline,
             Summation summation)
    : plan_(plan),
      lane_(lane),
      own_(own),
      transport_(transport),
      timeline_(timeline),
      summation_(std::move(summation)) {
  Index back = 0;
  for (const Step& step : plan.steps) back = std::max(back, count(step.homecoming));
  const Index most = plan.buffer_rows();
  for (Array* buffer : {&mine_, &leaving_, &arriving_})
    *buffer = Array(device, own.type, most, own.heads, own.channels);
  returning_ = Array(device, own.type, back, own.heads, own.channels);
}

Rows Trail::begin(std::size_t s) {
  const Step& step = plan_.steps[s];
  if (step.origin() == plan_.seat) return own_;
  const Rows rows = mine_.rows().slice(0, count(step.held));
  if (!step.tiles.empty()) summation_.clear(rows);
  return rows;
}

void Trail::settle() {
  if (sent_ == nullptr) return;
  {
    const Timeline::Span span(timeline_, "wait", 0);
    pending_.wait();
  }
  if (sent_->homecoming.empty()) return;
  const Timeline::Span span(timeline_, "merge", 0);
  Index at = 0;
  for (const Move& home : sent_->homecoming)
    for (const Range& range : home.rows) {
      summation_.add(returning_.rows().slice(at, at + range.count()), own_.slice(range.begin, range.end));
      at += range.count();
    }
}

void Trail::end(std::size_t s) {
  const Step& step = plan_.steps[s];
  settle();
  if (sent_ != nullptr && sent_->arrives_used) {  // what rode here with the present block
    const Index rows = count(step.held);
    const Timeline::Span span(timeline_, "merge", static_cast<Index>(s));
    summation_.add(arriving_.rows().slice(0, rows), mine_.rows().slice(0, rows));
  }
  std::vector<Send> sends;
  std::vector<Recv> recvs;
  if (step.origin() != plan_.seat && (step.forward || !step.give_back.empty())) {
    std::swap(mine_, leaving_);
    if (step.forward)
      add_sends(sends, lane_.rank(step.forward->seat), leaving_, step.held, step.origin(), step.forward->rows);
    for (const Move& home : step.give_back)
      add_sends(sends, lane_.rank(home.seat), leaving_, step.held, home.seat, home.rows);
  }
  if (step.arrives_used) add_recvs(recvs, lane_, arriving_, step.arrive);
  add_recvs(recvs, lane_, returning_, step.homecoming);
  pending_ = transport_.start(sends, recvs);
  sent_ = &step;
}

void Trail::home() {
  settle();
  sent_ = nullptr;
}

}  // namespace annulus

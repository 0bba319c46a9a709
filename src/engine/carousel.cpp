#include "annulus/engine/carousel.hpp"

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

// The pieces of a move as messages: one per range of rows.
void add_sends(std::vector<Send>& sends, Rank to, const Rows& block, const std::vector<Range>& held,
               const std::vector<Range>& rows) {
  for (const Range& range : rows) {
    const Range local = within(held, range);
    sends.push_back({to, block.span(local.begin, local.end)});
  }
}

// Rows arrive in the same pieces and lie close together.
void add_recvs(std::vector<Recv>& recvs, Rank from, const Rows& block, const std::vector<Range>& rows) {
  Index at = 0;
  for (const Range& range : rows) {
    recvs.push_back({from, block.span(at, at + range.count())});
    at += range.count();
  }
}

// Adds close-together rows to the rows of `into` that they belong to.
void add_rows(const Rows& from, const std::vector<Range>& held, const std::vector<Range>& rows, const Rows& into) {
  Index at = 0;
  for (const Range& range : rows) {
    const Range local = within(held, range);
    add(from.slice(at, at + range.count()), into.slice(local.begin, local.end));
    at += range.count();
  }
}

}  // namespace

void circulate(const Plan& plan, Lane lane, const Rows& own, Device& device, Transport& transport, Timeline& timeline,
               const Work& work) {
  const std::vector<Range> whole = united({{0, plan.key_rows}});
  const Index most = plan.buffer_rows();
  std::array<Array, 2> buffers;
  for (Array& buffer : buffers) buffer = Array(device, own.type, most, own.heads, own.channels);
  Rows here = own, next = buffers[0], spare = buffers[1];
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    if (step.forward) add_sends(sends, lane.rank(step.forward->seat), here, step.held, step.forward->rows);
    if (step.lend) add_sends(sends, lane.rank(step.lend->seat), own, whole, step.lend->rows);
    if (step.arrive) add_recvs(recvs, lane.rank(step.arrive->seat), next, step.arrive->rows);
    Pending moving = transport.start(sends, recvs);
    work(s, here.slice(0, count(step.held)), moving);
    const double waits = timeline.now();
    moving.wait();
    timeline.record("wait", static_cast<Index>(s), waits);
    if (!step.arrive) continue;
    // the own block is never overwritten; a visitor's buffer becomes free when the next one has arrived
    const Rows free = here.data == own.data ? spare : here;
    here = next;
    next = free;
  }
}

Trail::Trail(const Plan& plan, Lane lane, const Rows& own, Device& device, Transport& transport, Timeline& timeline)
    : plan_(plan), lane_(lane), own_(own), device_(device), transport_(transport), timeline_(timeline) {
  Index back = 0;
  for (const Step& step : plan.steps)
    if (step.homecoming) back = std::max(back, count(step.homecoming->rows));
  const Index most = plan.buffer_rows();
  for (Array* buffer : {&mine_, &leaving_, &arriving_})
    *buffer = Array(device, own.type, most, own.heads, own.channels);
  returning_ = Array(device, own.type, back, own.heads, own.channels);
}

Rows Trail::begin(std::size_t s) {
  const Step& step = plan_.steps[s];
  if (step.origin == plan_.seat) return own_;
  const Rows rows = mine_.rows().slice(0, count(step.held));
  if (!step.tiles.empty()) clear(rows);
  return rows;
}

void Trail::settle() {
  if (sent_ == nullptr) return;
  const double waits = timeline_.now();
  pending_.wait();
  timeline_.record("wait", 0, waits);
  if (!sent_->homecoming) return;
  const double merges = timeline_.now();
  add_rows(returning_, united({{0, plan_.key_rows}}), sent_->homecoming->rows, own_);
  timeline_.record("merge", 0, merges);
}

void Trail::end(std::size_t s) {
  const Step& step = plan_.steps[s];
  settle();
  if (sent_ != nullptr && sent_->arrives_used) {  // what rode here with the present block
    const Index rows = count(step.held);
    const double merges = timeline_.now();
    add(arriving_.rows().slice(0, rows), mine_.rows().slice(0, rows));
    timeline_.record("merge", static_cast<Index>(s), merges);
  }
  std::vector<Send> sends;
  std::vector<Recv> recvs;
  const bool leaves = step.origin != plan_.seat && (step.forward || step.give_back);
  if (leaves) {
    std::swap(mine_, leaving_);
    if (step.forward) add_sends(sends, lane_.rank(step.forward->seat), leaving_, step.held, step.forward->rows);
    if (step.give_back) add_sends(sends, lane_.rank(step.give_back->seat), leaving_, step.held, step.give_back->rows);
  }
  if (step.arrive && step.arrives_used) add_recvs(recvs, lane_.rank(step.arrive->seat), arriving_, step.arrive->rows);
  if (step.homecoming) add_recvs(recvs, lane_.rank(step.homecoming->seat), returning_, step.homecoming->rows);
  pending_ = transport_.start(sends, recvs);
  sent_ = &step;
}

void Trail::home() {
  settle();
  sent_ = nullptr;
}

}  // namespace annulus

#include "annulus/engine/carousel.hpp"

#include <algorithm>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/transport/collectives.hpp"

namespace annulus {
namespace {

// A block that is here: its rows one after another, and each range of them where it can be sent on from.
struct Visit {
  struct Piece {
    Index first;  // of the rows that come before it
    const std::byte* data;
    bool lent;
  };
  Rows rows;
  std::vector<Piece> pieces;

  Send send(Rank to, Range local) const {
    const auto after = std::ranges::upper_bound(pieces, local.begin, {}, &Piece::first);
    const Piece& piece = *std::prev(after);
    const std::byte* begin = piece.data + (local.begin - piece.first) * rows.pitch;
    return {to, {begin, static_cast<std::size_t>(local.count() * rows.pitch)}, piece.lent};
  }
};

// The pieces of a block as messages: one per range of rows.
void add_sends(std::vector<Send>& sends, Rank to, const Visit& here, const std::vector<Move>& held, Rank owner,
               const std::vector<Range>& rows) {
  for (const Range& range : rows) sends.push_back(here.send(to, within(held, owner, range)));
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

// What has come into the buffer, or stayed where its owner has it: one piece is used there, several are brought together.
Visit arrived(std::span<const Recv> recvs, std::span<const std::byte* const> seen, const Rows& buffer,
              const std::vector<Move>& moves, Device& device) {
  Visit visit{buffer, {}};
  Index first = 0;
  for (const Move& move : moves)
    for (const Range& range : move.rows) {
      const std::size_t i = visit.pieces.size();
      const bool stayed = seen[i] != recvs[i].bytes.data();
      if (stayed && recvs.size() > 1)
        device.copy(recvs[i].bytes.data(), seen[i], static_cast<Index>(recvs[i].bytes.size()));
      visit.pieces.push_back({first, seen[i], stayed});
      first += range.count();
    }
  if (seen.size() == 1) visit.rows.data = const_cast<std::byte*>(seen[0]);  // visitors are only read
  return visit;
}

// Where what comes is seen: in the caller's memory unless its owner's can be read.
std::vector<const std::byte*> look_at(std::vector<Recv>& recvs) {
  std::vector<const std::byte*> seen(recvs.size());
  for (std::size_t i = 0; i < recvs.size(); ++i) {
    seen[i] = recvs[i].bytes.data();
    recvs[i].seen = &seen[i];
  }
  return seen;  // moved: its elements stay where they are
}

// Sums that do not belong here leave after this step.
bool sums_leave(const Plan& plan, const Step& step) {
  return step.origin() != plan.seat && (step.forward || !step.give_back.empty());
}

// The own block, as what is held in step 0.
std::vector<Move> whole(const Plan& plan) { return {{plan.seat, united({{0, plan.own_rows}})}}; }

}  // namespace

bool own_block_leaves(const Plan& plan) {
  return std::ranges::any_of(
      plan.steps, [&](const Step& step) { return !step.lend.empty() || (step.forward && step.origin() == plan.seat); });
}

void circulate(const Plan& plan, Lane lane, const Rows& own, Device& device, Transport& transport, Timeline& timeline,
               const Work& work, const std::function<void()>& bring_home) {
  const std::vector<Move> mine = whole(plan);
  const Index most = plan.buffer_rows();
  std::array<Array, 2> buffers;
  for (Array& buffer : buffers) buffer = Array(device, own.type, most, own.heads, own.channels);
  SharedMemory* const shared = plan.steps.size() > 1 ? transport.shared() : nullptr;
  Rows lent = own;
  Array lent_array;
  if (shared != nullptr) {
    if (own.bytes() > 0 && own_block_leaves(plan) && !shared->holds(own.data)) {
      lent = lent_array = Array(*shared, own.type, own.tokens, own.heads, own.channels);
      device.copy_rows(own, lent);
    }
    shared->lend();
  }
  const Visit home{lent, {{0, lent.data, shared != nullptr}}};
  Visit here = home;
  std::size_t into = 0;  // the buffer in which nothing is needed
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    if (step.forward)
      add_sends(sends, lane.rank(step.forward->seat), here, step.held, step.origin(), step.forward->rows);
    for (const Move& loan : step.lend) add_sends(sends, lane.rank(loan.seat), home, mine, plan.seat, loan.rows);
    add_recvs(recvs, lane, buffers[into], step.arrive);
    std::vector<const std::byte*> seen = look_at(recvs);
    Pending moving = transport.start(sends, recvs);
    work(s, here.rows.slice(0, count(step.held)), moving);
    const Timeline::Span span(timeline, "wait", static_cast<Index>(s));
    moving.wait();
    if (!step.arrive.empty()) {
      here = arrived(recvs, seen, buffers[into], step.arrive, device);
      // a visitor's buffer becomes free when the next one has arrived
      if (here.rows.data == buffers[into].rows().data) into = 1 - into;
    }
  }
  if (bring_home) bring_home();
  if (shared == nullptr) return;
  const Timeline::Span span(timeline, "wait", static_cast<Index>(plan.steps.size()) - 1);
  recall(transport);
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
  std::size_t last = 0;
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    back = std::max(back, count(plan.steps[s].homecoming));
    if (sums_leave(plan, plan.steps[s])) lent_from_ = std::exchange(last, s);  // two buffers take turns
  }
  const Index most = plan.buffer_rows();
  for (Array* buffer : {&mine_, &leaving_})  // one of them leaves: the next rank copies it from where it lies
    *buffer = Array(lending(transport, device), own.type, most, own.heads, own.channels);
  arriving_ = Array(device, own.type, most, own.heads, own.channels);
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
  std::size_t i = recvs_.size();
  for (const Move& home : sent_->homecoming) i -= home.rows.size();
  for (const Move& home : sent_->homecoming)
    for (const Range& range : home.rows) add_piece(i++, own_.slice(range.begin, range.end));
}

void Trail::join(std::size_t s) {
  if (sent_ == nullptr || !sent_->arrives_used) return;
  const Timeline::Span span(timeline_, "merge", static_cast<Index>(s));
  std::size_t i = 0;
  Index at = 0;
  for (const Move& ridden : sent_->arrive)
    for (const Range& range : ridden.rows) {
      add_piece(i++, mine_.rows().slice(at, at + range.count()));
      at += range.count();
    }
}

// From where it lies: here, or where its sender has it.
void Trail::add_piece(std::size_t i, const Rows& into) {
  Rows from = into;
  from.data = const_cast<std::byte*>(seen_[i]);  // only read
  summation_.add(from, into);
}

void Trail::end(std::size_t s) {
  const Step& step = plan_.steps[s];
  settle();
  join(s);
  std::vector<Send> sends;
  recvs_.clear();
  if (sums_leave(plan_, step)) {
    std::swap(mine_, leaving_);
    const Visit leaves{leaving_, {{0, leaving_.rows().data, s >= lent_from_}}};
    if (step.forward)
      add_sends(sends, lane_.rank(step.forward->seat), leaves, step.held, step.origin(), step.forward->rows);
    for (const Move& home : step.give_back)
      add_sends(sends, lane_.rank(home.seat), leaves, step.held, home.seat, home.rows);
  }
  if (step.arrives_used) add_recvs(recvs_, lane_, arriving_, step.arrive);
  add_recvs(recvs_, lane_, returning_, step.homecoming);
  seen_ = look_at(recvs_);
  pending_ = transport_.start(sends, recvs_);
  sent_ = &step;
}

void Trail::home() {
  settle();
  sent_ = nullptr;
}

}  // namespace annulus

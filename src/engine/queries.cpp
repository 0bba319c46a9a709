#include "engine/local.hpp"

// Queries travel and K/V stay: the carousel with the roles exchanged. What the queries have gathered - partial results,
// their gradients - follows them and comes home.

namespace annulus {
namespace {

// Some of the numbers of every row: [tokens, heads, channels], `at` elements from the row's beginning.
Rows column(const Rows& rows, Index at, Index heads, Index channels) {
  Rows part = rows;
  part.data += at * bytes_of(rows.type);
  part.heads = heads;
  part.channels = channels;
  return part;
}

// A partial whose numbers lie side by side: rows [tokens, 1, heads * (value_channels + 2)].
Partial partial_of(const Rows& rows, Index heads, Index value_channels) {
  return {column(rows, 0, heads, value_channels), column(rows, heads * value_channels, heads, 1),
          column(rows, heads * (value_channels + 1), heads, 1)};
}

Summation merging(Kernel& kernel) {
  const auto partial = [heads = kernel.problem().query_heads, channels = kernel.problem().value_channels](
                           const Rows& rows) { return partial_of(rows, heads, channels); };
  return {[&kernel, partial](const Rows& rows) { kernel.reset(partial(rows)); },
          [&kernel, partial](const Rows& from, const Rows& into) { kernel.merge(partial(from), partial(into)); }};
}

// What backward needs of a query, side by side in whole 8-byte words: lse and delta first, for their alignment.
struct SavedLayout {
  Index heads, channels, value_channels;
  DType type, accumulator;
  Index dout_at() const { return q_at() + heads * channels * bytes_of(type); }
  Index q_at() const { return 2 * heads * bytes_of(accumulator); }
  Index words() const { return ceil_div(dout_at() + heads * value_channels * bytes_of(type), 8); }
  Saved views(const Rows& rows) const {
    const auto part = [&](Index at, DType of, Index c) {
      return Rows{rows.data + at, of, rows.place, rows.tokens, heads, c, rows.pitch};
    };
    return {part(q_at(), type, channels), part(dout_at(), type, value_channels), part(0, accumulator, 1),
            part(heads * bytes_of(accumulator), accumulator, 1)};
  }
};

}  // namespace

void Attention::forward_queries(Local& local, const Rows& out, const Rows& lse) {
  const DType type = machine_.kernel.accumulator();
  const Index heads = local.q.heads, width = heads * (shape_.value_channels + 2);
  Array packed;
  Rows q = local.q;
  if (!q.dense()) {
    packed = Array(lending(machine_.transport, machine_.device), q.type, q.tokens, q.heads, q.channels);
    machine_.device.copy_rows(q, packed);
    q = packed;
  }
  q.channels *= q.heads;
  q.heads = 1;
  Array own(machine_.device, type, local.q.tokens, 1, width);
  const Partial mine = partial_of(own, heads, shape_.value_channels);
  machine_.kernel.reset(mine);
  if (schedule_.grid.travel == Travel::tree) {
    merge_queries(q, local.kv, own);
  } else {
    pass_queries(q, local.kv, own);
  }
  finish(mine);
  if (!query_exchange_) {
    machine_.device.copy_rows(mine.out, out);
    machine_.device.copy_rows(mine.top, lse);
    return;
  }
  const Array dense_out(machine_.device, type, own.rows().tokens, heads, shape_.value_channels),
      dense_lse(machine_.device, type, own.rows().tokens, heads, 1);
  machine_.device.copy_rows(mine.out, dense_out);
  machine_.device.copy_rows(mine.top, dense_lse);
  local = {};  // what is not needed any more serves the way back
  own = Array();
  packed = Array();
  query_exchange_->scatter(dense_out, query_shares_, out);
  query_exchange_->scatter(dense_lse, query_shares_, lse);
}

// Each block of queries visits whoever has keys for it; its partial results come home at the end.
void Attention::pass_queries(const Rows& q, const KeyValue& kv, const Rows& own) {
  const Index heads = machine_.kernel.problem().query_heads;
  Trail trail(plan_, lane_, own, machine_.device, machine_.transport, machine_.timeline, merging(machine_.kernel));
  circulate(
      plan_, lane_, q, machine_.device, machine_.transport, machine_.timeline,
      [&](std::size_t s, const Rows& block, Pending& pending) {
        const Rows here = column(block, 0, heads, shape_.channels);
        const Partial into = partial_of(trail.begin(s), heads, shape_.value_channels);
        forward_step(plan_.steps[s], pending, here, kv, into);
        trail.end(s);
      },
      [&] { trail.home(); });
}

// All queries come here, meet the own keys, and what all ranks know of them is merged pairwise.
void Attention::merge_queries(const Rows& q, const KeyValue& kv, const Rows& own) {
  const Index heads = machine_.kernel.problem().query_heads;
  const Index all_rows = schedule_.mask.queries();
  const Array all(lending(machine_.transport, machine_.device), own.type, all_rows, 1, own.channels),
      arriving(machine_.device, own.type, all_rows, 1, own.channels);
  const Summation sums = merging(machine_.kernel);
  sums.clear(all);
  const Partial into = partial_of(all, heads, shape_.value_channels);
  circulate(plan_, lane_, q, machine_.device, machine_.transport, machine_.timeline,
            [&](std::size_t s, const Rows& block, Pending& pending) {
              const Rows here = column(block, 0, heads, shape_.channels);
              forward_step(plan_.steps[s], pending, here, kv, into);
            });
  for (const Merge& round : plan_.merges) {
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    for (const Range& rows : round.send)
      sends.push_back({lane_.rank(round.peer), all.rows().span(rows.begin, rows.end)});
    for (const Range& rows : round.receive)
      recvs.push_back({lane_.rank(round.peer), arriving.rows().span(rows.begin, rows.end)});
    {
      const Timeline::Span span(machine_.timeline, "merge", 0);
      machine_.transport.start(sends, recvs).wait();
    }
    for (const Range& rows : round.send) sums.clear(all.rows().slice(rows.begin, rows.end));
    for (const Range& rows : round.receive)
      sums.add(arriving.rows().slice(rows.begin, rows.end), all.rows().slice(rows.begin, rows.end));
  }
  Index first = 0;
  for (Rank seat = 0; seat < seat_; ++seat) first += schedule_.planner.queries().rows(seat);
  machine_.device.copy_rows(all.rows().slice(first, first + own.tokens), own);
}

// Queries travel with all that backward needs of them; dq follows, and the gradients of K and V stay.
void Attention::backward_queries(const Local& local, const Saved& saved, const Rows& dq, const Rows& sums) {
  const Problem& problem = machine_.kernel.problem();
  const SavedLayout layout{problem.query_heads, shape_.channels, shape_.value_channels, shape_.type,
                           machine_.kernel.accumulator()};
  const Array block(lending(machine_.transport, machine_.device), DType::f64, local.q.tokens, 1, layout.words());
  const Saved packed = layout.views(block);
  machine_.device.copy_rows(saved.q, packed.q);
  machine_.device.copy_rows(saved.dout, packed.dout);
  machine_.device.copy_rows(saved.lse, packed.lse);
  machine_.device.copy_rows(saved.delta, packed.delta);
  const KeyValue gradients = views(sums, problem.kv_heads, shape_.channels, shape_.value_channels);
  Trail trail(plan_, lane_, dq, machine_.device, machine_.transport, machine_.timeline, plain_sums(machine_.device));
  circulate(
      plan_, lane_, block, machine_.device, machine_.transport, machine_.timeline,
      [&](std::size_t s, const Rows& here, Pending& pending) {
        const Saved visitors = layout.views(here);
        const Rows into = column(trail.begin(s), 0, problem.query_heads, shape_.channels);
        compute_step(plan_.steps[s], 5.0 * static_cast<double>(shape_.channels + shape_.value_channels), pending,
                     [&](std::span<const Tile> tiles) {
                       machine_.kernel.backward(tiles, visitors, local.kv, {into, gradients.k, gradients.v});
                     });
        trail.end(s);
      },
      [&] { trail.home(); });
}

}  // namespace annulus

#include "annulus/engine/attention.hpp"

#include "annulus/base/error.hpp"
#include "annulus/kernel/partial.hpp"
#include "engine/local.hpp"

namespace annulus {
namespace {

std::vector<Index> member_tokens(const Partition& partition, Rank first, int members) {
  std::vector<Index> tokens;
  for (int u = 0; u < members; ++u) tokens.push_back(partition.rows(first + u));
  return tokens;
}

// K and V that lie side by side, as they travel.
bool side_by_side(const Rows& k, const Rows& v) {
  return k.pitch == v.pitch && k.pitch == k.row_bytes() + v.row_bytes() && v.data == k.data + k.row_bytes();
}
Rows joined(const Rows& k, Index width) { return dense_rows(k.data, k.type, k.tokens, 1, width, k.place); }

}  // namespace

KeyValue Attention::views(const Rows& block, Index kv_heads, Index channels, Index value_channels) {
  KeyValue kv{block, block};
  kv.k.heads = kv.v.heads = kv_heads;
  kv.k.channels = channels;
  kv.v.channels = value_channels;
  kv.v.data += kv_heads * channels * bytes_of(block.type);
  return kv;
}

Attention::Attention(const Schedule& schedule, const AttentionShape& shape, const Machine& machine)
    : Attention(schedule, schedule.plan_of(schedule.seat_of(machine.transport.rank())), shape, machine) {}

Attention::Attention(const Schedule& schedule, Plan plan, const AttentionShape& shape, const Machine& machine)
    : schedule_(schedule),
      plan_(std::move(plan)),
      shape_(shape),
      machine_(machine),
      seat_(schedule.seat_of(machine.transport.rank())),
      lane_{schedule.grid.heads, schedule.lane_of(machine.transport.rank())} {
  check(shape);
  const Rank rank = machine.transport.rank();
  require(machine.transport.ranks() == schedule.grid.ranks(),
          "the grid must have as many places as there are ranks: grid ", to_text(schedule.grid),
          ", ranks = ", machine.transport.ranks());
  require(machine.kernel.problem() == problem_of(shape, schedule.grid, lane_.lane, schedule.mask.query_shift()),
          "the kernel of rank ", rank, " was made for another problem than problem_of(shape, grid, lane, query shift)");
  for (int lane = 0; lane < schedule.grid.heads; ++lane) {
    const HeadShare share = share_of(shape, schedule.grid, lane);
    query_shares_.push_back(share.query);
    kv_shares_.push_back(share.kv);
  }
  if (schedule.grid.heads > 1) {
    const Rank first = seat_ * schedule.grid.heads;
    query_exchange_.emplace(machine.device, machine.transport, first, lane_.lane,
                            member_tokens(schedule.queries, first, schedule.grid.heads));
    key_exchange_.emplace(machine.device, machine.transport, first, lane_.lane,
                          member_tokens(schedule.keys, first, schedule.grid.heads));
  }
}

const Plan& Attention::ring_plan() {
  if (!queries_travel(schedule_.grid.travel)) return plan_;
  if (!ring_plan_) ring_plan_ = ring_of(schedule_).plan_of(seat_);
  return *ring_plan_;
}

void Attention::check_rows(const char* name, const Rows& rows, DType type, Index tokens, Index heads,
                           Index channels) const {
  require(rows.tokens == tokens && rows.heads == heads && rows.channels == channels, name, " must be ", tokens, " x ",
          heads, " x ", channels, " on this rank: it is ", rows.tokens, " x ", rows.heads, " x ", rows.channels);
  require(rows.type == type, name, " must be ", name_of(type), ": it is ", name_of(rows.type));
  require(rows.place == machine_.device.place(), name, " must lie in the memory of the device, ",
          machine_.device.name());
  check_layout(name, rows);
}
void Attention::check_queries(const char* name, const Rows& rows, DType type, Index channels) const {
  check_rows(name, rows, type, schedule_.queries.rows(machine_.transport.rank()), shape_.query_heads, channels);
}
void Attention::check_keys(const char* name, const Rows& rows, DType type, Index channels) const {
  check_rows(name, rows, type, schedule_.keys.rows(machine_.transport.rank()), shape_.kv_heads, channels);
}

// Brings q, K and V (which observe lacks) to the seat's form, and K and V side by side into one block where they leave.
Attention::Local Attention::localise(const Rows& q, const KeyValue& kv, bool leaves) {
  check_queries("q", q, shape_.type, shape_.channels);
  check_keys("k", kv.k, shape_.type, shape_.channels);
  const bool with_values = kv.v.channels > 0;
  Local local;
  local.q = q;
  local.kv = kv;
  auto& [k, v] = local.kv;
  if (query_exchange_) {
    local.q = local.q_array = query_exchange_->gather(q, query_shares_);
    k = local.k_array = key_exchange_->gather(kv.k, kv_shares_);
    if (with_values) v = local.v_array = key_exchange_->gather(kv.v, kv_shares_);
  }
  const Index width = k.heads * (shape_.channels + (with_values ? shape_.value_channels : 0));
  if (!leaves || (with_values ? side_by_side(k, v) : k.dense())) {
    local.block = joined(k, width);
    if (!leaves) local.block.data = nullptr;
    return local;
  }
  local.block_array = Array(lending(machine_.transport, machine_.device), k.type, k.tokens, 1, width);
  local.block = local.block_array;
  const KeyValue packed = views(local.block, k.heads, shape_.channels, with_values ? shape_.value_channels : 0);
  machine_.device.copy_rows(k, packed.k);
  if (with_values) machine_.device.copy_rows(v, packed.v);
  local.kv = packed;
  local.k_array = Array();
  local.v_array = Array();
  return local;
}

// The keys and values of a step: the own ones where they lie, or the visitors' in their block.
KeyValue Attention::keys_of(const Local& local, const Step& step, const Rows& block) const {
  if (step.origin() == seat_ || block.absent())
    return {local.kv.k.slice(0, block.tokens), local.kv.v.slice(0, block.tokens)};
  return views(block, local.kv.k.heads, shape_.channels, shape_.value_channels);
}

void Attention::forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse) {
  const DType type = machine_.kernel.accumulator();
  check_keys("v", kv.v, shape_.type, shape_.value_channels);
  check_queries("out", out, type, shape_.value_channels);
  check_queries("lse", lse, type, 1);
  const bool keys_travel = !queries_travel(schedule_.grid.travel);
  Local local = localise(q, kv, keys_travel && own_block_leaves(plan_));
  if (!keys_travel) return forward_queries(local, out, lse);
  // without head exchange the results are accumulated where the caller wants them
  const bool direct = !query_exchange_;
  Array out_array, lse_array;
  if (!direct) {
    out_array = Array(machine_.device, type, local.q.tokens, local.q.heads, shape_.value_channels);
    lse_array = Array(machine_.device, type, local.q.tokens, local.q.heads, 1);
  }
  const Array sum(machine_.device, type, local.q.tokens, local.q.heads, 1);
  const Partial partial{direct ? out : out_array.rows(), direct ? lse : lse_array.rows(), sum};
  machine_.kernel.reset(partial);
  circulate(plan_, lane_, local.block, machine_.device, machine_.transport, machine_.timeline,
            [&](std::size_t s, const Rows& block, Pending& pending) {
              const Step& step = plan_.steps[s];
              forward_step(step, pending, local.q, keys_of(local, step, block), partial, s + 1 == plan_.steps.size());
            });
  if (plan_.steps.empty()) finish(partial);
  if (direct) return;
  local = {};  // its memory serves the way back
  query_exchange_->scatter(partial.out, query_shares_, out);
  query_exchange_->scatter(partial.top, query_shares_, lse);
}

void Attention::finish(const Partial& partial) {
  const Timeline::Span span(machine_.timeline, "merge", 0);
  machine_.kernel.finish(partial, partial.top);
}

// K/V blocks travel, and their gradients follow: dq [rows, heads, channels], sums: those of the own block.
void Attention::backward_keys(const Local& local, const Saved& saved, const Rows& dq, const Rows& own) {
  const Plan& plan = ring_plan();
  Trail trail(plan, lane_, own, machine_.device, machine_.transport, machine_.timeline, plain_sums(machine_.device));
  circulate(
      plan, lane_, local.block, machine_.device, machine_.transport, machine_.timeline,
      [&](std::size_t s, const Rows& block, Pending& pending) {
        const KeyValue here = keys_of(local, plan.steps[s], block),
                       sums = views(trail.begin(s), here.k.heads, shape_.channels, shape_.value_channels);
        compute_step(plan.steps[s], 5.0 * static_cast<double>(shape_.channels + shape_.value_channels), pending,
                     [&](std::span<const Tile> tiles) {
                       machine_.kernel.backward(tiles, saved, here, {dq, sums.k, sums.v});
                     });
        trail.end(s);
      },
      [&] { trail.home(); });
}

void Attention::backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                         const Gradients& into) {
  const DType type = machine_.kernel.accumulator();
  check_keys("v", kv.v, shape_.type, shape_.value_channels);
  check_queries("dout", dout, shape_.type, shape_.value_channels);
  check_queries("out", out, type, shape_.value_channels);
  check_queries("lse", lse, type, 1);
  check_queries("dq", into.dq, type, shape_.channels);
  check_keys("dk", into.dk, type, shape_.channels);
  check_keys("dv", into.dv, type, shape_.value_channels);
  const bool keys_travel = schedule_.grid.travel != Travel::queries;
  Local local = localise(q, kv, keys_travel && own_block_leaves(ring_plan()));
  Array delta_array(machine_.device, type, out.tokens, out.heads, 1), dout_array, lse_array;
  machine_.kernel.row_dot(dout, out, delta_array);
  Saved saved{local.q, dout, lse, delta_array};
  if (query_exchange_) {
    saved.dout = dout_array = query_exchange_->gather(dout, query_shares_);
    saved.lse = lse_array = query_exchange_->gather(lse, query_shares_);
    saved.delta = delta_array = query_exchange_->gather(delta_array, query_shares_);
  }
  // without head exchange dq is summed up where the caller wants it
  const bool direct = !query_exchange_ && into.dq.dense();
  Array dq_array;
  if (!direct) dq_array = Array(machine_.device, type, local.q.tokens, local.q.heads, shape_.channels);
  const Rows dq_rows = direct ? into.dq : dq_array.rows();
  machine_.device.clear(dq_rows);
  Rows dq = dq_rows;
  dq.heads = 1;
  dq.channels = local.q.heads * shape_.channels;
  // ... and those of K and V, when these lie side by side there
  const bool direct_sums = !query_exchange_ && side_by_side(into.dk, into.dv);
  Array own_array;
  if (!direct_sums) own_array = Array(machine_.device, type, local.block.tokens, 1, local.block.channels);
  const Rows own = direct_sums ? joined(into.dk, local.block.channels) : own_array.rows();
  machine_.device.clear(own);
  if (keys_travel) {
    backward_keys(local, saved, dq_rows, own);
  } else {
    backward_queries(local, saved, dq, own);
  }
  const Index kv_heads = machine_.kernel.problem().kv_heads;
  const KeyValue sums = views(own, kv_heads, shape_.channels, shape_.value_channels);
  if (!query_exchange_) {
    if (!direct) machine_.device.copy_rows(dq_rows, into.dq);
    if (direct_sums) return;
    machine_.device.copy_rows(sums.k, into.dk);
    machine_.device.copy_rows(sums.v, into.dv);
    return;
  }
  machine_.device.clear(into.dk);
  machine_.device.clear(into.dv);
  local = {};  // its memory serves the way back
  dout_array = Array();
  query_exchange_->scatter(dq_rows, query_shares_, into.dq);
  dq_array = Array();
  Array dense(machine_.device, type, sums.k.tokens, kv_heads, shape_.channels);
  machine_.device.copy_rows(sums.k, dense);
  key_exchange_->scatter_add(dense, kv_shares_, into.dk);
  dense = Array(machine_.device, type, sums.v.tokens, kv_heads, shape_.value_channels);
  machine_.device.copy_rows(sums.v, dense);
  key_exchange_->scatter_add(dense, kv_shares_, into.dv);
}

void Attention::observe(const Rows& q, const Rows& k, const Rows& lse, const Observation& into) {
  const DType type = machine_.kernel.accumulator();
  check_queries("lse", lse, type, 1);
  const Plan& plan = ring_plan();
  const Local local = localise(q, {k, Rows{}}, own_block_leaves(plan));
  const Range share = query_shares_[static_cast<std::size_t>(lane_.lane)];
  Array lse_array;
  Rows local_lse = lse;
  if (query_exchange_) local_lse = lse_array = query_exchange_->gather(lse, query_shares_);
  // what this lane fills: its own rows when heads stay, else rows of the seat that go back at the end
  Observation lane = into;
  std::vector<std::pair<Array, Rows>> way_back;
  if (query_exchange_) {
    for (Rows* rows : {&lane.entropy, &lane.max_probability, &lane.sink_mass, &lane.mean_distance, &lane.top_score}) {
      if (rows->absent()) continue;
      way_back.emplace_back(query_exchange_->gather(*rows, query_shares_), *rows);
      *rows = way_back.back().first;
    }
    if (!into.top_score.absent()) {  // 64-bit keys travel as the bits of 64-bit numbers
      const Rows keys = dense_rows(into.top_index.data(), DType::f64, into.top_score.tokens, into.top_score.heads,
                                   into.top_score.channels, into.top_score.place);
      way_back.emplace_back(query_exchange_->gather(keys, query_shares_), keys);
      const Rows& here = way_back.back().first;
      lane.top_index = {reinterpret_cast<Index*>(here.data),
                        static_cast<std::size_t>(here.bytes() / bytes_of(here.type))};
    }
    const auto block = static_cast<std::size_t>(into.query_blocks * into.key_blocks);
    if (!into.block_mass.empty())
      lane.block_mass = into.block_mass.subspan(static_cast<std::size_t>(share.begin) * block,
                                                static_cast<std::size_t>(share.count()) * block);
  }
  const Array received =
      Array::zeros(machine_.device, type, into.received.absent() ? 0 : local.block.tokens, 1, share.count());
  const bool with_received = !into.received.absent();
  std::optional<Trail> trail;
  if (with_received)
    trail.emplace(plan, lane_, received, machine_.device, machine_.transport, machine_.timeline,
                  plain_sums(machine_.device));
  circulate(
      plan, lane_, local.block, machine_.device, machine_.transport, machine_.timeline,
      [&](std::size_t s, const Rows& block, Pending& pending) {
        const Rows keys = keys_of(local, plan.steps[s], block).k;
        if (with_received) {
          lane.received = trail->begin(s);  // [held, 1, heads] seen as [held, heads, 1]
          std::swap(lane.received.heads, lane.received.channels);
        }
        compute_step(
            plan.steps[s], 2.0 * static_cast<double>(shape_.channels), pending,
            [&](std::span<const Tile> tiles) { machine_.kernel.observe(tiles, local.q, keys, local_lse, lane); });
        if (with_received) trail->end(s);
      },
      [&] {
        if (with_received) trail->home();
      });
  if (with_received) {
    Rows home = received;
    std::swap(home.heads, home.channels);
    if (key_exchange_) {
      key_exchange_->scatter(home, query_shares_, into.received);
    } else {
      machine_.device.copy_rows(home, into.received);
    }
  }
  for (const auto& [array, rows] : way_back) query_exchange_->scatter(array, query_shares_, rows);
}

}  // namespace annulus

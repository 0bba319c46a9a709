#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numbers>
#include <thread>

#include "annulus/kernel/partial.hpp"
#include "base/threads.hpp"
#include "kernel/cpu/checks.hpp"
#include "kernel/cpu/fold.hpp"
#include "kernel/cpu/groups.hpp"
#include "kernel/cpu/pausing.hpp"
#include "kernel/cpu/scratch.hpp"
#include "kernel/cpu/tiled.hpp"

namespace annulus {
namespace {

using namespace cpu;

/// Three fifths of a core's second-level cache; the rest is for the chunk that is packed and the next one, on its way.
Index group_bytes() {
  long bytes = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  if (bytes <= 0) bytes = 512 * 1024;  // it does not say
  return std::clamp<Index>(bytes, 256 * 1024, 2048 * 1024) * 3 / 5;
}

Index head_bytes(const Rows& rows) { return rows.channels * bytes_of(rows.type); }
Source source(const Rows& rows, Index head) { return {rows.data + head * head_bytes(rows), rows.pitch}; }
Target target(const Rows& rows, Index head) {
  if (rows.absent()) return {nullptr, 0};
  return {rows.data + head * head_bytes(rows), rows.pitch};
}

Index pairs_of(std::span<const Tile> tiles) {
  Index pairs = 0;
  for (const Tile& tile : tiles) pairs += tile.pairs();
  return pairs;
}

class Tiled final : public Kernel {
 public:
  Tiled(const Problem& problem, const KernelOptions& options, std::string_view name, const Tier& tier,
        Index packed_bytes)
      : problem_(problem),
        shape_{problem.channels,
               problem.value_channels,
               problem.type,
               static_cast<float>(problem.softmax_scale),
               static_cast<float>(problem.softmax_scale * std::numbers::log2e),
               group_bytes()},
        name_(name),
        tier_(tier),
        scratch_(static_cast<std::size_t>(options.threads)),
        packed_floats_(packed_bytes / static_cast<Index>(sizeof(float))) {}

  std::string_view name() const override { return name_; }
  const Problem& problem() const override { return problem_; }
  DType accumulator() const override { return DType::f32; }
  bool pause_with(const Pause& pause) override {
    pause_ = pause;
    return true;
  }

  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    attend(tiles, q, kv, into, false);
  }
  void forward_and_finish(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv,
                          const Partial& into) override {
    attend(tiles, q, kv, into, true);
  }
  void reset(const Partial& partial) override {
    by_rows(partial.out.tokens, [&](Range rows) { reset_scores(part(partial, rows)); });
  }
  void finish(const Partial& partial, const Rows& lse) override {
    by_rows(partial.out.tokens, [&](Range rows) { annulus::finish(part(partial, rows), part(lse, rows)); });
  }
  void row_dot(const Rows& dout, const Rows& out, const Rows& delta) override {
    by_rows(out.tokens, [&](Range rows) { annulus::row_dot(part(dout, rows), part(out, rows), part(delta, rows)); });
  }

  void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) override {
    if (problem_.query_heads == 0) return;
    check_backward(problem_, tiles, saved, kv, into);
    const Index heads = problem_.query_heads, size = group_size(tier_, kv.k.tokens, problem_.kv_heads, Pass::backward);
    const auto keys = group_rows(in_lanes(tiles, keys_in_lanes), kv.k.tokens, size);
    std::vector<Index> done_from(keys.size() * static_cast<std::size_t>(heads), saved.q.tokens);
    Pausing pausing{pause_, heads * pairs_of(tiles)};
    // groups that are small for the sake of many threads: one thread reads queries once for several
    const Index grain = tier_.part_grain(shape_);
    const bool joins = scratch_.size() == 1 && grain > 0 && size % grain == 0;
    const auto items = joined(keys, joins ? tier_.group_lanes(shape_, Pass::backward) : 0);
    run(tier_, items, problem_.kv_heads, Pass::backward, [&](const JoinedGroups& item, Index g, float* scratch) {
      const Range range = heads_.sharing(g);
      const Turns turns{done_from.data(), item.first, heads, std::this_thread::yield};
      if (pausing.failed()) return give_up(turns, range);
      Group group = keys[static_cast<std::size_t>(item.first)].view();
      group.end = item.end;
      tier_.gradients({.shape = shape_,
                       .group = group,
                       .part_lanes = item.count > 1 ? size : item.end - item.begin,
                       .q = source(saved.q, range.begin),
                       .dout = source(saved.dout, range.begin),
                       .lse = source(saved.lse, range.begin),
                       .delta = source(saved.delta, range.begin),
                       .k = source(kv.k, g),
                       .v = source(kv.v, g),
                       .heads = range.count(),
                       .q_head_bytes = head_bytes(saved.q),
                       .dout_head_bytes = head_bytes(saved.dout),
                       .number_head_bytes = head_bytes(saved.lse),
                       .dk = target(into.dk, g),
                       .dv = target(into.dv, g),
                       .dq = target(into.dq, range.begin),
                       .dq_head_bytes = head_bytes(into.dq),
                       .turns = turns,
                       .first_head = range.begin},
                      scratch);
      pausing.after(item.pairs * range.count());
    });
    pausing.rethrow();
  }

  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    if (problem_.query_heads == 0) return;
    check_observe(problem_, tiles, q, k, lse, into);
    const bool map = !into.block_mass.empty();
    const Index tops = into.top_score.absent() ? 0 : into.top_score.channels, heads = problem_.query_heads;
    const auto queries =
        group_queries(tiles, group_size(tier_, q.tokens, heads, Pass::observe), map ? into.block_tokens : 0);
    std::vector<Index> done_from(queries.size() * static_cast<std::size_t>(heads), k.tokens);
    Pausing pausing{pause_, heads * pairs_of(tiles)};
    run(tier_, queries, heads, Pass::observe, [&](const RowGroup& group, Index h, float* scratch) {
      const Turns turns{done_from.data(), &group - queries.data(), heads, std::this_thread::yield};
      if (pausing.failed()) return give_up(turns, {h, h + 1});
      auto* top_index = tops == 0 ? nullptr : reinterpret_cast<std::byte*>(into.top_index.data() + h * tops);
      tier_.row_traces({.shape = shape_,
                        .group = group.view(),
                        .q = source(q, h),
                        .k = source(k, problem_.kv_head(h)),
                        .lse = source(lse, h),
                        .entropy = target(into.entropy, h),
                        .max_probability = target(into.max_probability, h),
                        .sink_mass = target(into.sink_mass, h),
                        .mean_distance = target(into.mean_distance, h),
                        .top_score = target(into.top_score, h),
                        .top_index = {top_index, into.top_score.heads * tops * static_cast<Index>(sizeof(Index))},
                        .top_count = tops,
                        .sink_tokens = into.sink_tokens,
                        .query_shift = problem_.query_shift,
                        .mass = map ? into.block_mass.data() + h * into.query_blocks * into.key_blocks : nullptr,
                        .block_tokens = into.block_tokens,
                        .key_blocks = into.key_blocks,
                        .received = target(into.received, h),
                        .turns = turns,
                        .head = h},
                       scratch);
      pausing.after(group.pairs);
    });
    pausing.rethrow();
  }

 private:
  // A call of forward.
  struct Call {
    const Tier& tier;
    Heads heads;
    const Rows& q;
    const KeyValue& kv;
    const Partial& into;
    Pausing pausing;
    Index heads_together = 1;  // of one item, which then has one block of lanes
    Index rows = 0;            // ForwardItem::rows
  };

  void attend(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into, bool last) {
    if (problem_.query_heads == 0) return;
    check_forward(problem_, tiles, q, kv, into);
    const Tier& tier = narrow_pays(q.tokens) ? **tier_.narrow : tier_;
    const auto folding =
        fold(tiles, {q.tokens, heads_.most_sharing(problem_.kv_heads), problem_.kv_heads, tier_.forward_lanes(shape_),
                     tier.forward_lanes(shape_), tier.heads_together == nullptr ? 1 : tier.heads_together(shape_)});
    if (folding) return attend_folded(*folding, tier, q, kv, into, last);
    Call call{tier_, heads_, q, kv, into, {pause_, problem_.query_heads * pairs_of(tiles)}};
    attend_pieces(in_lanes(tiles, queries_in_lanes), call, last);
  }

  // Few queries: their rows are copied into the lanes' order, and what each share of the keys gave is merged.
  void attend_folded(const Folding& folding, const Tier& tier, const Rows& q, const KeyValue& kv, const Partial& into,
                     bool last) {
    const FoldedRows rows(folding, problem_, heads_, q, folded_);
    const Index heads = problem_.kv_heads;
    Call call{tier,
              {heads, 1, 0},
              rows.q(),
              kv,
              rows.partial(),
              {pause_, heads * folding.pairs()},
              folding.heads_together,
              folding.rows == tier.lanes ? q.tokens * folding.members : 0};
    attend_pieces(folding.pieces, call, false);
    rows.merge(into);
    if (!last) return;
    const Partial done = part(into, {0, q.tokens});
    annulus::finish(done, done.top);
  }

  // In rounds: some packed chunks, for some key/value heads at a time. What chunks a round has depends on shapes only, for
  // the sake of the same bits; one thread takes its heads one by one, so that their chunks stay near.
  void attend_pieces(std::vector<Piece> pieces, Call& call, bool last) {
    const Tier& tier = call.tier;
    const Index rows = call.q.tokens;
    const ChunkForm form = tier.chunks(shape_);
    const Index room = form.steps == 0 ? 0 : std::max<Index>(1, packed_floats_ / form.floats);
    const Rounds rounds = cut_rounds(std::move(pieces), form.steps, room);
    Index heads_at_once = problem_.kv_heads;
    if (form.steps > 0 && scratch_.size() == 1) heads_at_once = 1;
    else if (rounds.at_once > 0) heads_at_once = std::clamp<Index>(room / rounds.at_once, 1, problem_.kv_heads);
    const Index heads = ceil_div(call.heads.count * heads_at_once, problem_.kv_heads);
    const Index size = call.rows > 0 ? tier.lanes : group_size(tier, rows, heads, Pass::forward);
    const std::vector<std::size_t> final_round = last_rounds(rounds, rows, size);
    packed_.grow(heads_at_once * rounds.at_once * form.floats);
    for (std::size_t k = 0; k < rounds.pieces.size(); ++k) {
      const auto groups = group_rows(rounds.pieces[k], rows, size);
      const auto is_last = [&](const RowGroup& group) {
        return last && final_round[static_cast<std::size_t>(group.begin / size)] == k;
      };
      for (Index g = 0; g < problem_.kv_heads; g += heads_at_once) {
        const Packed packed{{g, std::min(g + heads_at_once, problem_.kv_heads)}, rounds.at_once * form.floats};
        pack(rounds.chunks_of(k), form, packed, call);
        forward_round(groups, is_last, call, packed);
      }
    }
    for (std::size_t g = 0; last && g < final_round.size(); ++g) {
      if (final_round[g] < rounds.pieces.size()) continue;
      const Index begin = static_cast<Index>(g) * size;
      const Partial rest = part(call.into, {begin, std::min(begin + size, rows)});
      annulus::finish(rest, rest.top);
    }
  }

  // Whether fewer lanes are computed in narrow blocks.
  bool narrow_pays(Index queries) const {
    if (tier_.narrow == nullptr || *tier_.narrow == nullptr) return false;
    const auto lanes = [&, rows = queries * heads_.most_sharing(problem_.kv_heads)](const Tier& tier) {
      return ceil_div(rows, tier.forward_lanes(shape_)) * tier.forward_lanes(shape_);
    };
    return lanes(**tier_.narrow) < lanes(tier_);
  }

  static Rows part(Rows rows, const Range& of) {
    rows.data += of.begin * rows.pitch;
    rows.tokens = of.count();
    return rows;
  }
  static Partial part(const Partial& partial, const Range& of) {
    return {part(partial.out, of), part(partial.top, of), part(partial.sum, of)};
  }
  // Work that is done row by row, in a few portions.
  template <class Work>
  void by_rows(Index rows, const Work& work) const {
    const auto threads = static_cast<Index>(scratch_.size());
    const Index portions = threads == 1 ? 1 : std::min(4 * threads, ceil_div(rows, 256));
    work(Range{0, 0});  // refuses what it must here, not on another thread
    for_each_item(static_cast<int>(threads), portions, [&](Index n, int) {
      work(Range{rows * n / portions, rows * (n + 1) / portions});
    });
  }

  // Nobody waits for an item that is left out.
  static void give_up(const Turns& turns, const Range& heads) {
    for (Index h = heads.begin; h < heads.end; ++h)
      std::atomic_ref(turns.done_from[turns.turn * turns.heads + h]).store(-1, std::memory_order_release);
  }

  // What lies in packed_: some chunks of some key/value heads.
  struct Packed {
    Range heads;
    Index head_floats;
  };

  void pack(std::span<const Chunk> chunks, const ChunkForm& form, const Packed& packed, const Call& call) {
    const auto count = static_cast<Index>(chunks.size());
    run_items(call.tier, count * packed.heads.count(), Pass::forward, [&](Index item, float* scratch) {
      const Index head = item / count, n = item % count;
      const Chunk& chunk = chunks[static_cast<std::size_t>(n)];
      call.tier.pack({.shape = shape_,
                      .k = source(call.kv.k, packed.heads.begin + head),
                      .v = source(call.kv.v, packed.heads.begin + head),
                      .from = chunk.from,
                      .size = chunk.size,
                      .to = packed_.data() + head * packed.head_floats + n * form.floats},
                     scratch);
    });
  }

  template <class IsLast>
  void forward_round(const std::vector<RowGroup>& groups, const IsLast& is_last, Call& call, const Packed& packed) {
    const Range heads{call.heads.sharing(packed.heads.begin).begin, call.heads.sharing(packed.heads.end - 1).end};
    const Index together = call.heads_together, sets = ceil_div(heads.count(), together);
    run(call.tier, groups, sets, Pass::forward, [&](const RowGroup& group, Index n, float* scratch) {
      if (call.pausing.failed()) return;
      const Index h = heads.begin + n * together, g = call.heads.kv_head(h);
      call.tier.forward({.shape = shape_,
                         .group = group.view(),
                         .q = source(call.q, h),
                         .k = source(call.kv.k, g),
                         .v = source(call.kv.v, g),
                         .out = target(call.into.out, h),
                         .top = target(call.into.top, h),
                         .sum = target(call.into.sum, h),
                         .packed = packed_.data() + (g - packed.heads.begin) * packed.head_floats,
                         .last = is_last(group),
                         .rows = call.rows,
                         .heads = std::min(together, heads.end - h),
                         .q_head_bytes = head_bytes(call.q),
                         .k_head_bytes = head_bytes(call.kv.k),
                         .v_head_bytes = head_bytes(call.kv.v),
                         .out_head_bytes = head_bytes(call.into.out),
                         .number_head_bytes = head_bytes(call.into.top)},
                        scratch);
      call.pausing.after(group.pairs * std::min(together, heads.end - h));
    });
    call.pausing.rethrow();
  }

  // Rows per item: as many as profit from one packed chunk, unless that leaves too few items to share out. Forward
  // computes the same bits in any groups, so there the number of threads may decide; sums over groups may not.
  Index group_size(const Tier& tier, Index rows, Index heads, Pass pass) const {
    const auto threads = static_cast<Index>(scratch_.size());
    const Index items = pass != Pass::forward ? 32 : threads == 1 ? 1 : 8 * threads;
    return rows_per_group(rows, tier.group_lanes(shape_, pass), tier.lanes, ceil_div(items, heads));
  }

  static std::vector<Piece> in_lanes(std::span<const Tile> tiles, Piece (*turned)(const Tile&)) {
    std::vector<Piece> pieces;
    pieces.reserve(tiles.size());
    for (const Tile& tile : tiles) pieces.push_back(turned(tile));
    return pieces;
  }

  // Every (group, head) once; the longest groups of all heads first.
  template <class Groups, class Work>
  void run(const Tier& tier, const Groups& groups, Index heads, Pass pass, const Work& work) {
    run_items(tier, static_cast<Index>(groups.size()) * heads, pass, [&](Index item, float* scratch) {
      work(groups[static_cast<std::size_t>(item / heads)], item % heads, scratch);
    });
  }
  template <class Work>
  void run_items(const Tier& tier, Index items, Pass pass, const Work& work) {
    for (Scratch& scratch : scratch_) scratch.grow(tier.scratch_floats(shape_, pass));
    for_each_item(static_cast<int>(scratch_.size()), items,
                  [&](Index item, int thread) { work(item, scratch_[static_cast<std::size_t>(thread)].data()); });
  }

  Problem problem_;
  Heads heads_{problem_.query_heads, problem_.group, problem_.phase};
  Shape shape_;
  std::string_view name_;
  const Tier& tier_;
  std::vector<Scratch> scratch_;  // one per thread
  Index packed_floats_;           // as much is packed at a time
  Scratch folded_;
  Scratch packed_;
  Pause pause_;
};

}  // namespace

std::unique_ptr<Kernel> cpu::make_kernel_of_tier(const Problem& problem, const KernelOptions& options,
                                                 std::string_view name, const Tier& tier, Index packed_bytes) {
  require(options.threads > 0, "threads must be positive, but are ", options.threads);
  check_problem(problem);
  return std::make_unique<Tiled>(problem, options, name, tier, packed_bytes);
}

}  // namespace annulus

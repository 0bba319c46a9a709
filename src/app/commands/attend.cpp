#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <future>
#include <stop_token>
#include <string_view>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/store/cache_file.hpp"
#include "annulus/store/content_hash.hpp"
#include "annulus/store/input_file.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/commands/commands.hpp"
#include "app/compute.hpp"
#include "app/help.hpp"
#include "app/outputs.hpp"
#include "app/speeds.hpp"
#include "app/stop.hpp"
#include "app/tensors.hpp"
#include "app/timeline_file.hpp"

namespace annulus::app {
namespace {

// Everything one rank keeps of an attend job.
struct Tensors {
  Array q, block, dout, out, lse, sum, dq, dblock;
  KeyValue kv, dkv;
};

// Reads the whole input, beside everything else; given up when the job fails or is stopped.
class InputHash {
 public:
  explicit InputHash(const std::string& path)
      : hash_(std::async(std::launch::async, [path, stop = stop_.get_token()] { return content_hash(path, stop); })) {}
  InputHash(const InputHash&) = delete;
  InputHash& operator=(const InputHash&) = delete;
  ~InputHash() { stop_.request_stop(); }
  std::string get() {
    while (hash_.wait_for(std::chrono::milliseconds(100)) != std::future_status::ready) require_not_stopped();
    return hash_.get();
  }

 private:
  std::stop_source stop_;
  std::future<std::string> hash_;  // its destructor waits
};

Tensors read(const TensorInput& input, const Job& job, const RankTools& tools, const Passes& passes) {
  const Rank rank = tools.transport.rank();
  const AttentionShape& s = job.shape;
  const auto queries = job.schedule.queries.runs(rank), keys = job.schedule.keys.runs(rank);
  const Index rows = job.schedule.queries.rows(rank), key_rows = job.schedule.keys.rows(rank);
  Tensors t;
  t.q = Array(tools.device, s.type, rows, s.query_heads, s.channels);
  // Where queries travel, keys stay in memory of large pages (later passes are those of a ring).
  const bool stays = queries_travel(job.schedule.grid.travel) && !passes.observe && !passes.backward;
  t.block = Array(stays ? tools.device : lending(tools.transport, tools.device), s.type, key_rows, 1,
                  s.kv_heads * (s.channels + s.value_channels));
  t.kv = Attention::views(t.block, s.kv_heads, s.channels, s.value_channels);
  const auto fill = [&](const char* name, std::span<const Run> runs, const Rows& into) {
    const bool follows = input.cache && (name == std::string_view("k") || name == std::string_view("v"));
    const std::string what = sentence("dataset ", input.places.path(name), " of ",
                                      follows ? input.cache->path() + " followed by that of " : "", input.file.path());
    input.read(name, runs, into, {job.place.threads, [&](const Rows& part) {
                                    check_numbers(part, (part.data - into.data) / into.pitch, what, runs);
                                  }});
  };
  fill("q", queries, t.q);
  fill("k", keys, t.kv.k);
  fill("v", keys, t.kv.v);
  t.out = Array(tools.device, DType::f32, rows, s.query_heads, s.value_channels);
  t.lse = Array(tools.device, DType::f32, rows, s.query_heads, 1);
  if (!passes.backward) return t;
  t.dout = Array(tools.device, s.type, rows, s.query_heads, s.value_channels);
  fill("dout", queries, t.dout);
  t.dq = Array(tools.device, DType::f32, rows, s.query_heads, s.channels);
  t.dblock = Array(tools.device, DType::f32, key_rows, 1, s.kv_heads * (s.channels + s.value_channels));
  t.dkv = Attention::views(t.dblock, s.kv_heads, s.channels, s.value_channels);
  return t;
}

void declare(Draft& draft, const Job& job, const TraceChoice& traces, bool backward) {
  const AttentionShape& s = job.shape;
  const Index tokens = job.schedule.mask.queries(), keys = job.schedule.mask.keys();
  const Element element = element_of(s.type);
  draft.dimension("token", tokens);
  draft.dimension("key", keys);
  draft.add({"out",
             {tokens, s.query_heads, s.value_channels},
             element,
             {"token", "head", "value_channel"},
             "as v",
             "attention output"});
  draft.add({"lse",
             {tokens, s.query_heads},
             Element::f32,
             {"token", "head"},
             "nat",
             "log of the sum of exponentials of the scaled scores"});
  if (backward) {
    const auto add = [&](const char* name, std::vector<Index> dims, std::vector<std::string> names) {
      const std::string by(1, name[1]);
      draft.add(
          {name, std::move(dims), element, std::move(names), "1 / " + by, "gradient of sum(dout * out) by " + by});
    };
    add("dq", {tokens, s.query_heads, s.channels}, {"token", "head", "channel"});
    add("dk", {keys, s.kv_heads, s.channels}, {"key", "kv_head", "channel"});
    add("dv", {keys, s.kv_heads, s.value_channels}, {"key", "kv_head", "value_channel"});
  }
  Traces::declare(draft, traces, job, "trace");
}

void write(const Layout& layout, const Job& job, const Tensors& t, const Traces& traces, Rank rank, bool backward) {
  RowWriter writer(layout);
  const auto queries = job.schedule.queries.runs(rank), keys = job.schedule.keys.runs(rank);
  writer.write_rows("out", queries, t.out);
  writer.write_rows("lse", queries, t.lse);
  if (backward) {
    writer.write_rows("dq", queries, t.dq);
    writer.write_rows("dk", keys, t.dkv.k);
    writer.write_rows("dv", keys, t.dkv.v);
  }
  traces.write(writer, t.lse);
  writer.finish();
}

// The cache that the lead finds, or all zero; all ranks.
CacheMark find_cache(const Settings& settings, RankTools& tools) {
  CacheMark found;
  together(tools.transport, [&] {
    const std::string& path = settings.text("append");
    if (tools.lead && std::filesystem::exists(path)) found = CacheFile(path).mark();
  });
  const auto* begin = reinterpret_cast<const std::byte*>(&found);
  std::vector<std::byte> bytes(begin, begin + sizeof found);
  broadcast(tools.transport, 0, bytes);
  std::memcpy(&found, bytes.data(), sizeof found);
  return found;
}

CacheGrowth growth_of(const std::string& path, const Job& job, const CacheMark& found) {
  const AttentionShape& s = job.shape;
  const Index keys = job.schedule.mask.keys();
  return {path,
          {{keys, s.kv_heads, s.channels}, element_of(s.type)},
          {{keys, s.kv_heads, s.value_channels}, element_of(s.type)},
          found};
}

// What a rank has of the last keys and values, as many as the layout has rows for.
void write_cache(const Layout& layout, const Job& job, const Tensors& t, Rank rank) {
  RowWriter writer(layout);
  const Index begin = job.schedule.mask.keys() - layout.find("k").shape.dims[0];
  Index row = 0;
  for (const Run& run : job.schedule.keys.runs(rank)) {
    const Index old = std::clamp<Index>(ceil_div(begin - run.first, run.stride), 0, run.count);
    const Run added{run.at(old) - begin, run.count - old, run.stride};
    if (added.count > 0)
      for (const auto& [name, rows] : {std::pair{"k", t.kv.k}, std::pair{"v", t.kv.v}})
        writer.write_rows(name, {&added, 1}, rows.slice(row + old, row + run.count));
    row += run.count;
  }
  writer.finish();
}

void attend(const Settings& given, const Context& context, const Placement& place, RankTools& tools) {
  const Settings settings = with_measured_weights(given, place, tools);
  const std::string& path = settings.positional().front();
  const bool backward = settings.flag("backward");
  const bool appends = settings.has("append");
  const TraceChoice choice = trace_choice(settings);
  std::optional<TensorInput> input;
  std::optional<Job> job;
  std::optional<Draft> draft;
  std::optional<CacheGrowth> cache;
  std::optional<InputHash> hash;
  const double begins = tools.timeline.now();
  together(tools.transport, [&] {
    if (tools.lead) check_outputs(settings, {path});
  });
  const CacheMark found = appends ? find_cache(settings, tools) : CacheMark{};
  together(tools.transport, [&] {
    const bool grown = found != CacheMark{};
    input = open_tensors(
        path, tensor_choice(settings, backward, grown ? CacheChoice{settings.text("append")} : CacheChoice{}));
    require<Failure::file>(!grown || input->cache->mark() == found, settings.text("append"),
                           ": the cache was changed by somebody else, or the ranks see different ones: of ",
                           found.tokens, " tokens, and of ", input->cached);
    if (tools.lead && grown) check_outputs(settings, input->cache->part_files());
    job = make_job(settings, place, input->shape, input->mask, backward);
    check_memory(*job, backward, trace_bytes(choice, *job));
  });
  const Passes passes{choice.any(), backward, trace_bytes(choice, *job)};
  Compute compute(settings, *job, tools, passes);
  Layout mine, mine_of_cache;
  together(tools.transport, [&] {
    if (!tools.lead) return;
    draft.emplace(settings.text("output"), settings.flag("overwrite"));
    hash.emplace(path);
    describe_result(*draft, settings, context, *job, "annulus-attend", compute);
    draft->attribute("/", "input", std::filesystem::absolute(path).string());
    record(*draft, input->places);
    declare(*draft, *job, choice, backward);
    if (appends) {
      draft->attribute("/", "cache", std::filesystem::absolute(settings.text("append")).string());
      draft->attribute("/", "cached_tokens", input->cached);
      cache.emplace(growth_of(settings.text("append"), *job, found));
      mine_of_cache = cache->layout();
    }
    mine = draft->seal();
  });
  const Layout layout = share_layout(tools.transport, mine),
               cache_layout = share_layout(tools.transport, mine_of_cache);
  Tensors t;
  together(tools.transport, [&] { t = read(*input, *job, tools, passes); });
  const double computes = tools.timeline.now();
  compute.forward(t.q, t.kv, t.out, t.lse);
  Traces traces(choice, *job, tools, "trace");
  if (choice.any()) compute.observe(t.q, t.kv.k, t.lse, traces);
  if (backward) compute.backward(t.q, t.kv, t.dout, t.out, t.lse, {t.dq, t.dkv.k, t.dkv.v});
  compute.finish();
  const double writes = tools.timeline.now();
  together(tools.transport, [&] {
    write(layout, *job, t, traces, tools.transport.rank(), backward);
    if (appends) write_cache(cache_layout, *job, t, tools.transport.rank());
  });
  std::string prediction;
  together(tools.transport, [&] {
    if (!tools.lead) return;
    traces.write_small(*draft);
    prediction = compute.compare_with_prediction(settings, context, *draft);
    draft->attribute("/", "input_hash", hash->get());
    if (appends) cache->hold();  // who was overtaken leaves no result either
    draft->commit();
    if (appends) cache->commit();  // last: whoever repeats what failed before does not append twice
  });
  if (!tools.lead) return;
  const AttentionShape& s = job->shape;
  const double operations =
      2.0 * static_cast<double>(job->schedule.mask.pairs() * s.query_heads * (s.channels + s.value_channels)) *
      (backward ? 3.5 : 1.0);
  std::printf("annulus attend: %s token%s x %lld:%lld heads x %lld channels, %s, %s\n",
              grouped(job->schedule.mask.queries()).c_str(), job->schedule.mask.queries() == 1 ? "" : "s",
              static_cast<long long>(s.query_heads), static_cast<long long>(s.kv_heads),
              static_cast<long long>(s.channels), std::string(name_of(s.type)).c_str(),
              job->schedule.mask.name().c_str());
  if (const Index keys = job->schedule.mask.keys(), queries = job->schedule.mask.queries();
      !appends && !input->places.axes.heads_first && queries > 1 && s.query_heads > queries && s.kv_heads > keys)
    std::printf(
        "  hint      more heads than tokens: datasets are [tokens, heads, channels], not [heads, tokens, channels]\n"
        "            (these are read with --layout heads-first)\n");
  std::printf("  plan      %s\n            %s  kernel    %s\n", describe(*job, context).c_str(),
              wrapped_line(job->reason, 12).c_str(), compute.description().c_str());
  std::printf("  read %s, compute %s (%.1f GFLOP/s), write %s\n", duration_text(computes - begins).c_str(),
              duration_text(writes - computes).c_str(), operations / (writes - computes) * 1e-9,
              duration_text(tools.timeline.now() - writes).c_str());
  std::fputs(prediction.c_str(), stdout);
  if (!input->model_mask.empty() && input->model_mask != job->schedule.mask.name())
    std::printf("  note      the model's own mask in this layer is %s\n", input->model_mask.c_str());
  if (choice.received) std::printf("  check     attention received = queries, off by %.1e\n", traces.deviation());
  std::printf("  wrote     %s\n", settings.text("output").c_str());
  if (appends)
    std::printf("  cache     %s: %s tokens, %s of them new\n", settings.text("append").c_str(),
                grouped(job->schedule.mask.keys()).c_str(), grouped(job->schedule.mask.keys() - input->cached).c_str());
}

int run(const Settings& settings, Context& context) {
  require(settings.has("output"), "attend needs --output FILE");
  require(!settings.has("append") || !settings.flag("backward"),
          "--append and --backward exclude one another: the gradients of cached keys would have no place");
  const Placement place = placement(settings, context);
  catch_stop_signals();
  context.on_every_rank(place.ranks, settings.number("timeout"),
                        recorded(settings, [&](RankTools& tools) { attend(settings, context, place, tools); }));
  return 0;
}

}  // namespace

Command attend_command() {
  return {
      .name = "attend",
      .summary = "q, k, v in HDF5 -> out, lse (with --backward also dq, dk, dv)",
      .arguments = {"INPUT.h5", 1, 1},
      .options = joined({{mask_option("causal"),
                          dtype_option("(as the input; f64 is rounded to f32)"),
                          softmax_scale_option(),
                          {.name = "backward",
                           .group = "Attention",
                           .help = "also the gradients, as [tokens, heads, channels]; the input then holds dout"},
                          {.name = "append",
                           .value = "FILE",
                           .group = "Attention",
                           .help = "K/V cache (HDF5): its tokens come before those of the input, whose keys and values "
                                   "are added to it; made when there is none. For prefill in parts, and decoding\n"
                                   "an ordinary file with k and v, and nothing else, is made one as it grows"}},
                         tensor_options(),
                         trace_options("none"),
                         distribution_options(),
                         output_options()}),
      .examples = {"annulus attend qkv.h5 --output out.h5 --mask causal",
                   "mpirun -n 4 annulus attend qkv.h5 --output out.h5 --mask window:4095,0+sink:4 --trace standard",
                   "annulus attend qkv.h5 --output grads.h5 --backward --ranks 2 --strategy ulysses",
                   "annulus attend qkv.h5 --append cache.h5 --output next.h5 --ranks 4",
                   "annulus attend layers.h5 --group layer0 --layout heads-first --batch 0 --output layer0.h5"},
      .run = run};
}

}  // namespace annulus::app

#include "app/traces.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "annulus/transport/collectives.hpp"

namespace annulus::app {
namespace {

// f32 sums over up to 10^6 queries per key, added in blocks: 2e-5 was the largest deviation seen; ten times that is broken.
// And p = exp(s - lse) where s and lse nearly cancel: lse is stored as f32, off by up to 2^-24 |lse|, and every score by
// 4 times that (recompute.cpp), in the forward pass and here: 9 at most, 5 were seen.
double most_deviation(double largest_lse) { return 2e-4 + 9 * 0x1p-24 * largest_lse; }

struct Blocks {
  Index tokens = 1, queries = 1, keys = 1;
};
Blocks blocks_of(const Mask& mask, Index wish) {
  const Index longest = std::max<Index>(1, std::max(mask.queries(), mask.keys()));
  const Index tokens = ceil_div(longest, wish);
  return {tokens, std::max<Index>(1, ceil_div(mask.queries(), tokens)),
          std::max<Index>(1, ceil_div(mask.keys(), tokens))};
}

Element key_element(Index keys) { return keys < 0xffffffffLL ? Element::u32 : Element::u64; }

}  // namespace

TraceChoice trace_choice(const Settings& settings) {
  const std::string& level = settings.text("trace");
  TraceChoice choice;
  choice.statistics = level != "none";
  choice.received = choice.map = level != "none" && level != "summary";
  choice.edges = level == "edges" || level == "full";
  choice.top_k = choice.edges ? settings.count("top-k", 1) : 0;
  require(choice.top_k <= 1024, settings.name_of("top-k"), " must be at most 1024: it is ", choice.top_k);
  choice.sink_tokens = settings.count("sink-tokens");
  choice.map_blocks = settings.count("map-blocks", 1);
  require(choice.map_blocks <= 4096, settings.name_of("map-blocks"), " must be at most 4096: it is ",
          choice.map_blocks);
  return choice;
}

namespace {

// Of a rank with so many rows.
Index trace_bytes(const TraceChoice& choice, Index heads, const Mask& mask, Index rows, Index keys) {
  constexpr Index number = sizeof(float), index = sizeof(Index);
  Index bytes = 0;
  if (choice.statistics) bytes += 4 * number * rows * heads;
  if (choice.received) bytes += number * keys * heads;
  if (choice.edges) bytes += (2 * number + index) * rows * heads * choice.top_k;
  if (choice.map) {  // twice: it is summed over the ranks
    const Blocks blocks = blocks_of(mask, choice.map_blocks);
    bytes += 2 * static_cast<Index>(sizeof(double)) * heads * blocks.queries * blocks.keys;
  }
  return bytes;
}

}  // namespace

Index trace_bytes(const TraceChoice& choice, const Job& job) {
  return trace_bytes(choice, job.shape.query_heads, job.schedule.mask, job.schedule.queries.largest(),
                     job.schedule.keys.largest());
}

Index trace_bytes(const TraceChoice& choice, const AttentionShape& shape, const Mask& mask, Index ranks) {
  const auto share = [&](Index rows) { return (rows + ranks - 1) / ranks; };
  return trace_bytes(choice, shape.query_heads, mask, share(mask.queries()), share(mask.keys()));
}

Index trace_file_bytes(const TraceChoice& choice, const Job& job) {
  const Index heads = job.shape.query_heads, keys = job.schedule.mask.keys(),
              rows = job.schedule.mask.queries() * heads;
  constexpr Index number = sizeof(float);
  Index bytes = 0;
  if (choice.any()) bytes += 5 * number * rows;  // lse and four statistics
  if (choice.received) bytes += number * keys * heads;
  if (choice.edges) bytes += (bytes_of(key_element(keys)) + number) * rows * choice.top_k;
  if (choice.map) {
    const Blocks blocks = blocks_of(job.schedule.mask, choice.map_blocks);
    bytes += number * heads * blocks.queries * blocks.keys;
    bytes += static_cast<Index>(sizeof(Index)) * (blocks.queries + blocks.keys);  // where they begin
  }
  return bytes;
}

Traces::Traces(const TraceChoice& choice, const Job& job, const RankTools& tools, std::string group)
    : choice_(choice), job_(job), rank_(tools.transport.rank()), group_(std::move(group)) {
  const Index rows = job.schedule.queries.rows(rank_), keys = job.schedule.keys.rows(rank_),
              heads = job.shape.query_heads;
  const auto zeros = [&](Index tokens, Index channels = 1) {
    return Array::zeros(tools.device, DType::f32, tokens, heads, channels);
  };
  if (choice.statistics)
    for (Array* array : {&entropy_, &max_probability_, &sink_mass_, &mean_distance_}) *array = zeros(rows);
  if (choice.received) received_ = zeros(keys);
  if (choice.map) {
    const Blocks blocks = blocks_of(job.schedule.mask, choice.map_blocks);
    block_tokens_ = blocks.tokens;
    query_blocks_ = blocks.queries;
    key_blocks_ = blocks.keys;
    map_.assign(static_cast<std::size_t>(heads * query_blocks_ * key_blocks_), 0.0);
  }
  if (choice.edges) {
    top_score_ = zeros(rows, choice.top_k);
    top_probability_ = zeros(rows, choice.top_k);
    std::ranges::fill(top_score_.elements<float>(), -std::numeric_limits<float>::infinity());
    top_index_.assign(static_cast<std::size_t>(rows * heads * choice.top_k), -1);
  }
}

void Traces::declare(Draft& draft, const TraceChoice& choice, const Job& job, const std::string& group) {
  const Index tokens = job.schedule.mask.queries(), keys = job.schedule.mask.keys(), heads = job.shape.query_heads;
  const auto add = [&](const char* name, Index first, std::vector<Index> rest, Element element, const char* units,
                       const char* what, const char* dimension = "token") {
    std::vector<Index> dims{first, heads};
    std::vector<std::string> names{dimension, "head"};
    if (!rest.empty()) names.emplace_back("k");
    dims.insert(dims.end(), rest.begin(), rest.end());
    draft.add({group + "/" + name, dims, element, names, units, what});
  };
  if (!choice.any()) return;
  add("lse", tokens, {}, Element::f32, "nat", "log of the sum of exponentials of the scaled scores");
  add("entropy", tokens, {}, Element::f32, "nat", "entropy of a query's attention");
  add("max_probability", tokens, {}, Element::f32, "1", "largest probability of a query's attention");
  add("sink_mass", tokens, {}, Element::f32, "1", "attention on the first keys of the sequence");
  draft.attribute(group + "/sink_mass", "sink_tokens", choice.sink_tokens);
  add("mean_distance", tokens, {}, Element::f32, "token", "mean distance between a query and what it attends to");
  if (choice.received)
    add("received_mass", keys, {}, Element::f32, "1", "attention a key receives from all queries", "key");
  if (!choice.edges) return;
  add("topk_index", tokens, {choice.top_k}, key_element(keys), "1",
      "keys with the most attention, most first; largest value: unused");
  add("topk_probability", tokens, {choice.top_k}, Element::f32, "1", "attention of these keys");
}

Observation Traces::view() {
  Observation o;
  o.entropy = entropy_;
  o.max_probability = max_probability_;
  o.sink_mass = sink_mass_;
  o.mean_distance = mean_distance_;
  o.received = received_;
  o.top_score = top_score_;
  o.top_index = top_index_;
  o.block_mass = map_;
  o.sink_tokens = choice_.sink_tokens;
  o.block_tokens = block_tokens_;
  o.query_blocks = query_blocks_;
  o.key_blocks = key_blocks_;
  return o;
}

void Traces::settle(Transport& transport, const Rows& lse) {
  const Index heads = job_.shape.query_heads, rows = lse.tokens;
  if (choice_.edges) {
    for (Index i = 0; i < rows; ++i)
      for (Index h = 0; h < heads; ++h)
        for (Index x = 0; x < choice_.top_k; ++x) {
          const float score = top_score_.rows().at<const float>(i, h)[x];
          if (!std::isinf(score))
            top_probability_.rows().at<float>(i, h)[x] = std::min(1.0F, std::exp(score - *lse.at<const float>(i, h)));
        }
  }
  // what rounding puts beside the range of an entropy or a probability
  for (float& entropy : entropy_.elements<float>()) entropy = entropy < 0 ? 0 : entropy;
  for (Array* array : {&max_probability_, &sink_mass_})
    for (float& p : array->elements<float>()) p = p > 1 ? 1 : p;
  if (!choice_.received) return;
  // [head] mass received, [head] queries that see something, [head, query block] queries of the block that do
  std::vector<double> sums(static_cast<std::size_t>(heads * (2 + query_blocks_)), 0.0);
  for (Index j = 0; j < received_.rows().tokens; ++j)
    for (Index h = 0; h < heads; ++h) sums[static_cast<std::size_t>(h)] += *received_.rows().at<const float>(j, h);
  double largest_lse = 0;
  for (Index i = 0; i < rows; ++i)
    for (Index h = 0; h < heads; ++h) {
      if (std::isinf(*lse.at<const float>(i, h))) continue;
      largest_lse = std::max<double>(largest_lse, std::abs(*lse.at<const float>(i, h)));
      ++sums[static_cast<std::size_t>(heads + h)];
      const Index block = job_.schedule.queries.position(rank_, i) / block_tokens_;
      ++sums[static_cast<std::size_t>(2 * heads + h * query_blocks_ + block)];
    }
  sum_to(transport, 0, sums);
  sum_to(transport, 0, map_);
  all_max(transport, {&largest_lse, 1});
  std::unique_ptr<Error> broken;
  if (transport.rank() == 0) {
    for (Index h = 0; h < heads; ++h) {
      const double seen = sums[static_cast<std::size_t>(heads + h)];
      const double off = std::abs(sums[static_cast<std::size_t>(h)] - seen) / std::max(1.0, seen);
      deviation_ = std::max(deviation_, std::isfinite(off) ? off : 1.0);
    }
    for (Index row = 0; row < heads * query_blocks_; ++row) {  // the mean over a block's queries: rows sum to 1
      const double seen = std::max(1.0, sums[static_cast<std::size_t>(2 * heads + row)]);
      for (Index b = 0; b < key_blocks_; ++b) map_[static_cast<std::size_t>(row * key_blocks_ + b)] /= seen;
    }
    if (const double most = most_deviation(largest_lse); deviation_ > most)
      broken = std::make_unique<Error>(
          Failure::runtime, sentence("the attention received by keys must sum to the number of queries: it is off by ",
                                     deviation_, " of it, and ", most, " is allowed"));
  }
  together(transport, [&] {
    if (broken != nullptr) throw Error(*broken);
  });
}

void Traces::write(RowWriter& writer, const Rows& lse) const {
  if (!choice_.any()) return;
  const auto queries = job_.schedule.queries.runs(rank_);
  writer.write_rows(group_ + "/lse", queries, lse);
  writer.write_rows(group_ + "/entropy", queries, entropy_);
  writer.write_rows(group_ + "/max_probability", queries, max_probability_);
  writer.write_rows(group_ + "/sink_mass", queries, sink_mass_);
  writer.write_rows(group_ + "/mean_distance", queries, mean_distance_);
  if (choice_.received) writer.write_rows(group_ + "/received_mass", job_.schedule.keys.runs(rank_), received_);
  if (!choice_.edges) return;
  writer.write_integer_rows(group_ + "/topk_index", queries, top_index_, job_.shape.query_heads * choice_.top_k);
  writer.write_rows(group_ + "/topk_probability", queries, top_probability_);
}

void Traces::drop_rows() {
  for (Array* array :
       {&entropy_, &max_probability_, &sink_mass_, &mean_distance_, &received_, &top_score_, &top_probability_})
    *array = Array();
  top_index_ = std::vector<Index>();  // {} would keep the memory
}

void Traces::write_small(Draft& draft) const {
  if (!choice_.map) return;
  const auto first_tokens = [&](const char* name, Index blocks, const char* what) {
    std::vector<Index> firsts;
    for (Index b = 0; b < blocks; ++b) firsts.push_back(b * block_tokens_);
    draft.write_small({group_ + "/" + name, {blocks}, Element::i64, {name}, "token", what}, firsts);
  };
  first_tokens("query_block", query_blocks_, "first query of a block");
  first_tokens("key_block", key_blocks_, "first key of a block");
  const DatasetPlan plan{group_ + "/block_mass",
                         {job_.shape.query_heads, query_blocks_, key_blocks_},
                         Element::f32,
                         {"head", "query_block", "key_block"},
                         "1",
                         "mean attention of the queries of a block on the keys of a block"};
  draft.write_small(plan, map_);
  draft.attribute(group_ + "/block_mass", "block_tokens", block_tokens_);
}

}  // namespace annulus::app

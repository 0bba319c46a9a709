#pragma once
#include <string>
#include <vector>

#include "annulus/engine/attention.hpp"
#include "annulus/store/draft.hpp"
#include "annulus/store/row_writer.hpp"
#include "app/job.hpp"

namespace annulus::app {

/// What --trace asks for.
struct TraceChoice {
  bool statistics = false;  ///< entropy, max_probability, sink_mass, mean_distance
  bool received = false, map = false;
  bool edges = false;  ///< top keys
  Index top_k = 0, sink_tokens = 4, map_blocks = 128;
  bool any() const { return statistics || received || map || edges; }
};
TraceChoice trace_choice(const Settings& settings);

/// Bytes of memory that a rank's traces need at most.
Index trace_bytes(const TraceChoice& choice, const Job& job);
/// Before there is a plan: of ranks that share the rows evenly.
Index trace_bytes(const TraceChoice& choice, const AttentionShape& shape, const Mask& mask, Index ranks);

/// Bytes of the datasets that all ranks' traces become.
Index trace_file_bytes(const TraceChoice& choice, const Job& job);

/// One rank's attention traces: made neutral, filled by Attention::observe, written under a group of the result.
class Traces {
 public:
  Traces(const TraceChoice& choice, const Job& job, const RankTools& tools, std::string group);

  /// Declares the datasets (lead, before the draft is sealed).
  static void declare(Draft& draft, const TraceChoice& choice, const Job& job, const std::string& group);
  Observation view();
  /// Turns scores into probabilities and checks the conservation law: over all ranks, the mass received by keys is the
  /// number of queries that see something. All ranks; throws Error (runtime) when the law is broken.
  void settle(Transport& transport, const Rows& lse);
  void write(RowWriter& writer, const Rows& lse) const;
  /// The block map, which lies summed on the lead after settle().
  void write_small(Draft& draft) const;

  /// Lets go of everything but the block map.
  void drop_rows();

  const Rows& entropy() const { return entropy_; }
  const Rows& max_probability() const { return max_probability_; }
  const Rows& sink_mass() const { return sink_mass_; }
  const Rows& mean_distance() const { return mean_distance_; }
  const Rows& top_score() const { return top_score_; }
  std::span<const Index> top_index() const { return top_index_; }
  Index top_k() const { return choice_.top_k; }
  /// Largest relative deviation from the conservation law, over heads (lead).
  double deviation() const { return deviation_; }

 private:
  TraceChoice choice_;
  const Job& job_;
  Rank rank_;
  std::string group_;
  Array entropy_, max_probability_, sink_mass_, mean_distance_, received_, top_score_, top_probability_;
  std::vector<Index> top_index_;
  std::vector<double> map_;
  Index block_tokens_ = 1, query_blocks_ = 1, key_blocks_ = 1;
  double deviation_ = 0;
};

}  // namespace annulus::app

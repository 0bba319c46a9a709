#pragma once
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "annulus/engine/heads.hpp"
#include "annulus/plan/cost.hpp"
#include "annulus/plan/plan.hpp"
#include "app/config.hpp"
#include "app/context.hpp"
#include "app/hardware.hpp"

namespace annulus::app {

/// Options that several commands share.
std::vector<Option> plan_options(std::string ranks_fallback);  ///< strategy, grid, partition, weights, ranks, hardware
std::vector<Option> machine_options();                         ///< threads, device, kernel, transport, ...
std::vector<Option> distribution_options();                    ///< both
Option mask_option(std::string fallback);
/// Whether --mask has a term without a value: causal; documents, whose offsets have to come from somewhere.
bool names_term(std::string_view mask, std::string_view term);
Option dtype_option(std::string fallback);
Option softmax_scale_option();
Option progress_option();
std::vector<Option> shape_options();
std::vector<Option> trace_options(std::string fallback);
std::vector<Option> output_options();
std::vector<Option> joined(std::vector<std::vector<Option>> groups);

/// What --weights says for speeds.hpp to measure.
inline constexpr std::string_view measured_weights = "measured";

/// Document offsets for a mask with `documents` but no input: equal documents of so many tokens.
std::vector<Index> equal_documents(Index tokens, Index each);

/// How the ranks of a command are placed. ranks_per_node: so many neighbours share a node.
struct Placement {
  int ranks = 1, ranks_per_node = 1, threads = 1;
};
Placement placement(const Settings& settings, const Context& context);
/// --threads, or each rank's share of its node's cores.
int threads_of(const Settings& settings, const Context& context, int ranks);

/// What is computed and by whom.
struct Job {
  AttentionShape shape;
  Schedule schedule;
  std::string strategy, reason;  ///< what was taken, and why when `auto` chose
  Placement place;
  std::vector<double> weights = {};                    ///< relative speeds of the ranks; empty: all equal
  bool by_auto = false;                                ///< `auto` chose the strategy
  std::vector<std::pair<Grid, Estimate>> priced = {};  ///< as Choice::priced
};

/// Resolves strategy, grid and partition; `auto` by --hardware, or at nominal prices. Throws Error (usage) with the reason when they do not fit together.
/// looked: as choose() says; memory_limit: as Prices has it.
struct Choosing {
  std::function<void(Index)> looked = {};
  Index memory_limit = std::numeric_limits<Index>::max();
};
Job make_job(const Settings& settings, const Placement& place, const AttentionShape& shape, const Mask& mask,
             bool backward, const Choosing& choosing = {});
/// What estimate() says of a schedule on the job's partition, at the prices by which `auto` chose.
Estimate estimate_of(const Job& job, const Schedule& schedule, const Prices& prices);
/// Nominal, and as --hardware says.
Prices prices_of(const AttentionShape& shape, bool backward);
Prices prices_of(const Job& job, bool backward);
/// On this hardware, as the program runs now: ranks of a node are threads, or processes that share memory.
Prices prices_of(const Job& job, const Context& context, const Hardware& hardware, bool backward);
Prices prices_of(const Settings& settings, const Placement& place, const AttentionShape& shape, bool backward);
/// --hardware, if given.
std::optional<Hardware> hardware_of(const Settings& settings);

/// Bytes a rank of the job needs at most for its rows, visiting blocks and results.
Index memory_of(const Job& job, bool backward);

/// Throws Error (fit) when the ranks of this node would need more memory than there is, with the number that would fit.
/// extra_bytes: what a rank needs besides (traces).
void check_memory(const Job& job, bool backward, Index extra_bytes);

/// "ring 1x4x1, zigzag, 4 ranks x 1 thread, mpi"
std::string describe(const Job& job, const Context& context);

}  // namespace annulus::app

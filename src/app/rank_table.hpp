#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "app/job.hpp"

namespace annulus::app {

/// What a plan comes to with so many ranks, or why there is none.
struct RankRow {
  int ranks = 1, ranks_per_node = 1;
  std::string refusal = {};
  std::string strategy = {}, grid = {}, partition = {}, reason = {};
  Estimate estimate = {};
  Index memory = 0;  ///< bytes of a rank at most, traces included
  bool legal() const { return refusal.empty(); }
  int nodes() const { return (ranks + ranks_per_node - 1) / ranks_per_node; }
};

/// The memory of a rank that plans must keep to, and who says so: "--memory-limit", "H200, NVLink ...".
struct MemoryLimit {
  Index bytes = 0;
  std::string by;
};

/// The numbers of ranks that --ranks lists, in order. Throws Error (usage) for none, zero, too many, and for a list that is too long.
std::vector<int> ranks_listed(const std::string& name, std::span<const Range> list);

/// One line per number of ranks, and the answer to how many. limit: of a rank's memory, if any is known. tokens: queries.
/// out: gets the same as "by_ranks", an array, and "answer".
void print_rank_table(const std::vector<RankRow>& rows, const std::optional<MemoryLimit>& limit, Index tokens,
                      nlohmann::json& out);

}  // namespace annulus::app

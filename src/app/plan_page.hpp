#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "app/job.hpp"

namespace annulus::app {

/// Bytes of the datasets that `attend` reads and writes, by name.
struct FileBytes {
  std::vector<std::pair<std::string, Index>> read, write;
};

/// What is known of a plan before it is shown.
struct Planned {
  const Job& job;
  const Prices& prices;
  const Estimate& estimate;
  const FileBytes& files;
  Index trace_bytes = 0;  ///< of memory, per rank
};

/// Each prints a part of the page and adds the same to the machine-readable twin.
/// Who computes what when, and a line per step; where gradients are those of a ring, the same of that ring.
void print_schedule(const Planned& plan, nlohmann::json& out);
/// Pairs, exchange, nodes, memory, files, time.
void print_costs(const Planned& plan, nlohmann::json& out);
/// What each strategy does in each pass, or why it cannot be had.
void print_legality(const Job& job, nlohmann::json& out);

}  // namespace annulus::app

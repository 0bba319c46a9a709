#pragma once
#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/plan/cost.hpp"
#include "annulus/plan/plan.hpp"

namespace annulus::app {

/// How two ranks are joined, fastest first: threads of one process, processes that share memory, devices of one node (NVLink,
/// PCIe), nodes.
enum class LinkClass { process, shared, node, network };
inline constexpr std::array<std::string_view, 4> link_names{"process", "shared", "node", "network"};

/// A message of b bytes takes latency_seconds + b / bytes_per_second.
struct Link {
  double latency_seconds = 0, bytes_per_second = 0;
};

/// A kernel's rate on a tile of `tokens` queries x `tokens` keys, one rank at work.
struct RatePoint {
  double tokens = 0, operations_per_second = 0;
};

/// What a machine can do, measured by `annulus bench calibrate` or taken from data sheets. As a file (configs/hardware/*.ini):
///     name = two nodes in the corner
///     ranks-per-node = 8
///     link.network = 2e-6, 46e9                   # seconds, bytes per second
///     kernel.bf16.forward.causal = 2048:484e12, 32768:688e12      # tokens of a square tile : operations per second
/// Operations are counted as 2 x visible pairs x heads x (channels + value channels) forward, 2.5 times that backward.
struct Hardware {
  std::string name;
  int ranks_per_node = 1;
  std::array<std::optional<Link>, link_names.size()> links;
  std::map<std::string, std::vector<RatePoint>> rates;  ///< by "bf16.forward.causal", ascending in tokens

  /// The link of this class, or the next slower one that is known; the slowest known when there is none.
  Link link(LinkClass kind) const;
  /// Between points: a straight line over the logarithm of the tokens; outside: the nearest point. A causal rate that is not
  /// known is the full one and the reverse. Throws Error (usage) when nothing is known about the type and pass.
  double rate(DType type, bool backward, bool causal, double tokens) const;
};

/// Throws Error (usage) that names the file, the line and the rule.
Hardware read_hardware(const std::string& path);
/// As read_hardware reads it; comment: lines put in front.
std::string hardware_page(const Hardware& hardware, const std::string& comment);

/// What `bench` predicts for a pass whose slowest moves go over links of this kind: the one place to change when there is a
/// better model.
double predicted_seconds(const Schedule& schedule, Prices prices, DType type, const Hardware& hardware, LinkClass kind);

}  // namespace annulus::app

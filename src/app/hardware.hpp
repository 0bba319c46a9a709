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

/// What a machine can do, measured by `annulus bench calibrate` or taken from data sheets. As a file (configs/hardware/*.ini):
///     name = two nodes in the corner
///     ranks-per-node = 8           # that compute at the rates below; more share them
///     network-ports = 2            # ranks of a node that use the network at full speed; default: ranks-per-node
///     link.network = 2e-6, 46e9    # seconds, bytes per second
///     link.node = 2e-6, 46e9, 1, 65536, 6e-6      # more of LinkPrice: hidden (default: ordinary()), long_bytes and _latency_seconds
///     memory = 4.8e12              # bytes per second of clearing, adding and copying; default: they take no time
///     memory-bytes = 141e9         # of a rank; what `plan` of several numbers of ranks compares with; default: not known
///     pass = 1e-5                  # seconds of a forward or backward pass beside all that; default: 0
///     keys.bf16 = 4.8e12           # bytes per second of keys and values that a few queries meet; default: as memory
///     kernel.bf16.forward.causal = 2048:484e12, 32768:688e12      # tokens of a square tile : operations per second
/// Operations are counted as 2 x visible pairs x heads x (channels + value channels) forward, 2.5 times that backward.
struct Hardware {
  std::string name;
  int ranks_per_node = 1;
  std::optional<int> network_ports;
  std::array<std::optional<LinkPrice>, link_names.size()> links;
  std::optional<double> memory_bytes_per_second, memory_bytes, seconds_per_pass;
  std::map<std::string, double> key_bytes_per_second;   ///< by "bf16"
  std::map<std::string, std::vector<RatePoint>> rates;  ///< by "bf16.forward.causal", ascending in tokens

  /// The link of this class, or the next slower one that is known; the slowest known when there is none.
  LinkPrice link(LinkClass kind) const;
  /// How ranks of one node are joined, if nothing else is known: node, shared or process, whichever comes first.
  LinkClass inside() const;
  /// Both passes' rates, full and causal. Throws Error (usage) when nothing is known about the type and pass.
  Rates rates_of(DType type, bool backward) const;
  /// What rates there are of: "f32 forward, f32 backward".
  std::string known() const;
  /// The type itself if there are rates for it, else the first of f32, bf16, f16 that has some.
  DType known_type(DType wish) const;
};

/// How a class of links behaves when nothing was measured: threads copy at once; processes that share memory copy while
/// neither of them computes; nothing else needs a core.
LinkPrice ordinary(LinkClass kind, double latency_seconds, double bytes_per_second);

/// Throws Error (usage) that names the file, the line and the rule.
Hardware read_hardware(const std::string& path);
/// As read_hardware reads it; comment: lines put in front.
std::string hardware_page(const Hardware& hardware, const std::string& comment);

/// The prices of a job on this machine, so many of its ranks on each node, joined there by links of this kind.
Prices priced(Prices job, DType type, const Hardware& hardware, int ranks_per_node, LinkClass inside);

}  // namespace annulus::app

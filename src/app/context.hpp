#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "annulus/memory/device.hpp"
#include "annulus/timeline/timeline.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus::app {

/// What one rank of a command works with.
struct RankTools {
  Transport& transport;
  Device& device;
  Timeline& timeline;
  bool lead = false;  ///< prints, and makes files
  int node_rank = 0;  ///< among the ranks of its node
  bool own_process = true;
  bool moves_gpu_memory = false;  ///< the transport does: its messages may lie in the memory of a GPU

  /// The same with another transport.
  RankTools over(Transport& other) const {
    return {other, device, timeline, lead, node_rank, own_process, moves_gpu_memory};
  }
};

/// An error that all ranks know of: they stop together, and the lead alone speaks.
class Agreed : public Error {
 public:
  explicit Agreed(const Error& error) : Error(error) {}
};

/// How the program was started: alone, with threads as ranks, or as one process of many.
class Context {
 public:
  explicit Context(std::vector<std::string> arguments);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  /// Whether this process prints what is for everybody to see once.
  bool lead() const;
  bool under_mpi() const;
  /// Ranks of a command: those of mpirun, else `wish` threads (0: one).
  /// Throws Error (usage) when both are asked for and differ, or when `transport` cannot be had.
  int ranks(Index wish, const std::string& transport = "auto") const;
  /// Before anything else is exchanged: runs part on every process, and all agree on how it went, as in together(). Throws Error
  /// (usage) when what part returns is not what the lead's returned.
  void agree(const std::function<std::string()>& part);
  /// --transport, before anything runs on every rank.
  void choose_transport(const std::string& choice);
  /// How the ranks' messages travel: "threads", "mpi" or "shared", which is known once something has run on every rank.
  std::string transport() const;
  int ranks_per_node(int ranks) const;
  /// So many neighbouring ranks share a node, on every node.
  int node_divisor(int ranks) const;
  /// Processor cores this process may use, and its share of them when several ranks share the node.
  static int cores();
  int threads_per_rank(int ranks, Index wish) const;
  const std::vector<std::string>& arguments() const { return arguments_; }

  /// Runs body once per rank and returns when all are done. Throws the failure that came first.
  void on_every_rank(int ranks, double patience_seconds, const std::function<void(RankTools&)>& body);
  /// Whether this rank tells people of a failure that only some ranks know of: the one that saw it first does.
  bool speaks() noexcept;
  /// Ends the job for everybody after a failure that only this rank knows of (MPI), or does nothing (threads).
  void abandon(const Error& error) noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::vector<std::string> arguments_;
};

/// Runs one part of a command on this rank and then agrees with the others on how it went: when it failed anywhere, all
/// ranks throw the same Agreed.
void together(Transport& transport, const std::function<void()>& part);

/// Bytes of memory a rank may still take on this node, 0 when that is not known.
Index available_memory();

}  // namespace annulus::app

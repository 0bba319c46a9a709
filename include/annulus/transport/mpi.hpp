#pragma once
#include <limits>
#include <memory>
#include <string>

#include "annulus/transport/transport.hpp"

namespace annulus {

/// MPI from its beginning to its end, made by the main thread; all processes together. Ranks are numbered node after node,
/// whatever the order in which mpirun dealt them out: neighbours share a node.
///
/// Where MPI runs already it is used as it is, at MPI_THREAD_FUNNELED or more, and left to whoever has started it, who
/// finalises it later. MPI that the session has started ends with it. When it ends because an exception passes through, the
/// others would wait for this rank in vain: the job ends with MPI_Abort and exit code 1. So whoever wants to say what
/// happened, or to end with another code, catches inside the session's life, and calls Transport::fail().
class MpiSession {
 public:
  /// Throws Error (communication) when MPI cannot be started, has ended before, or runs without support for threads.
  MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  ~MpiSession();
  Rank rank() const { return rank_; }
  int ranks() const { return ranks_; }
  /// Ranks that share this node's memory.
  int ranks_per_node() const { return ranks_per_node_; }
  /// Some node has several ranks.
  bool neighbours() const { return neighbours_; }
  /// The largest number that divides the ranks of every node: so many neighbours, counted from 0, share a node.
  int node_divisor() const { return node_divisor_; }
  /// This rank's place among them.
  int node_rank() const { return node_rank_; }
  /// Whether a thread of the transport's own may call MPI: one at a time where the session has started it, else at
  /// MPI_THREAD_MULTIPLE only, for nobody knows when its owner calls it.
  bool takes_turns() const { return takes_turns_; }
  /// Name and version of the library.
  static std::string library();
  /// Whether messages may lie in the memory of a GPU: the library says so of itself.
  static bool knows_cuda();

 private:
  Rank rank_ = 0;
  int ranks_ = 1, ranks_per_node_ = 1, node_rank_ = 0, node_divisor_ = 1;
  bool neighbours_ = false, takes_turns_ = false;
  bool started_here_ = false;
  int exceptions_ = 0;  // under way when it was made
};

struct MpiOptions {
  double patience_seconds = 600;                  ///< a wait that lasts longer fails with Error (communication)
  Index most_bytes_per_message = Index{1} << 30;  ///< longer ones are cut; 4096 to 2^31 - 1: counts are ints in MPI
  Index most_shared_bytes = std::numeric_limits<Index>::max();  ///< of a rank's memory that its neighbours can read
};

/// Non-blocking MPI between processes; the tag carries the batch number. The session must outlive it. fail() ends the
/// job with MPI_Abort and the failure's exit code. A thread of its own looks after messages between nodes while batches are
/// under way; else progress is made inside poll() and wait() only. Make it while no other has batches under way. Throws
/// Error (usage) for options out of range.
std::unique_ptr<Transport> make_mpi_transport(const MpiSession& session, const MpiOptions& options = {});

/// The same, and ranks of one node read what is lent where it lies, and copy other messages straight from each other's
/// shared memory. Throws the same Error (runtime) on all ranks when the system does not let them.
std::unique_ptr<Transport> make_shared_transport(const MpiSession& session, const MpiOptions& options = {});

}  // namespace annulus

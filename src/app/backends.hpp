#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/kernel/kernel.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus::app {

class Sequence;
struct SequenceChoice;

/// All kernels, best first. `auto` takes the first that can run the problem.
std::span<const KernelRow> kernels();
/// The kernel of this name, or the best one for `auto`. Throws Error (usage) with the reason when it cannot run here.
std::unique_ptr<Kernel> make_kernel(std::string_view name, const Problem& problem, const KernelOptions& options);

/// The processes of an mpirun, when there are any and this build knows MPI.
class Processes {
 public:
  virtual ~Processes() = default;
  virtual Rank rank() const = 0;
  virtual int ranks() const = 0;
  virtual int ranks_per_node() const = 0;
  virtual int node_divisor() const = 0;
  virtual std::unique_ptr<Transport> transport(double patience_seconds) = 0;
};
/// nullptr when this process was not started by mpirun (or srun). Throws Error when it was, but this build has no MPI.
std::unique_ptr<Processes> join_processes();

/// "Open MPI v4.1.4", or why there is none.
std::string mpi_library();
bool has_audio();
/// make_audio_sequence. Throws Error (usage) when this build cannot read recordings.
std::unique_ptr<Sequence> make_recording_sequence(const SequenceChoice& choice);
bool has_threads();

}  // namespace annulus::app

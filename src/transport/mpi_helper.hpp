#pragma once
#include <condition_variable>
#include <mutex>
#include <thread>

namespace annulus::mpi {

struct Link;

/// MPI is one per process, and so is this: whoever calls it while a helper may be at work holds it.
std::mutex& calls();

/// MPI goes on only inside its calls, and a kernel may compute for 200 ms between two of them; TCP then has sent what fits
/// its buffers. This thread looks after the batches under way every millisecond, unless somebody waits for one and does so
/// himself. The link must outlive it.
class Helper {
 public:
  explicit Helper(Link& link);
  /// With calls() held: there is something to look after.
  void wake() { changed_.notify_one(); }

 private:
  void run(const std::stop_token& stop);
  Link& link_;
  std::condition_variable_any changed_;
  std::jthread thread_;  // last: it uses the others
};

}  // namespace annulus::mpi

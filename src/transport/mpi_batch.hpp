#pragma once
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <chrono>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <vector>

#include "annulus/transport/transport.hpp"
#include "transport/mpi_helper.hpp"

namespace annulus::mpi {

/// Every vendor code becomes an Error here.
void check(int code, const char* what);

class Batch;

/// What the transport of a process and its batches have in common.
struct Link {
  MPI_Comm messages = MPI_COMM_NULL;
  double patience_seconds = 600;
  Index most_bytes_per_message = Index{1} << 30;
  Index tags = 32768;
  Rank rank = 0;
  bool crowded = false;                      ///< more ranks on this node than cores
  std::unique_ptr<NodeMemory> memory;        ///< null where messages are never read in place
  MPI_Comm thanks = MPI_COMM_NULL;           ///< ... else: empty messages that say that one has been copied
  Rank first_neighbour = 0, neighbours = 1;  ///< the ranks of this node, this one among them
  std::vector<Batch*> open;                  ///< batches under way: whoever waits for one helps them all
  int waiting = 0;                           ///< so many are in wait()
  std::exception_ptr trouble;                ///< what the helper met
  std::unique_ptr<Helper> helper;            ///< null where none is needed or MPI does not allow it

  Link() = default;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link();
  bool near(Rank peer) const { return peer >= first_neighbour && peer < first_neighbour + neighbours; }
  /// Looks at all batches, with calls() held.
  void advance();
};

/// A batch of messages in MPI. A message between neighbours that lies in their shared memory is not sent: a note tells
/// where it is. It is as long as a piece of a message never is, so the receiver knows it by its length. Who copies from
/// there says thanks, for which the sender waits; what is lent stays, and needs none.
class Batch final : public Pending::Batch {
 public:
  Batch(std::shared_ptr<Link> link, Index number, std::span<const Send> sends, std::span<const Recv> recvs);
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  /// A batch given up takes its messages back, so that nobody writes to memory that is about to go.
  ~Batch() override;
  bool poll() override;
  void wait() override;
  bool under_way() const { return open_ > 0; }
  /// Looks at what is done, with calls() held; a note is read, and its message copied or pointed at.
  void advance();

 private:
  struct Note {
    NodeMemory::Spot spot;
    std::uint64_t bytes = 0;  // of the piece
    std::int64_t lent = 0;
  };
  struct Arrival {
    Rank from = 0;
    std::span<std::byte> into;
    const std::byte** seen = nullptr;  // of the message
    std::size_t at = 0;                // where in the message this piece begins
  };
  void send(const Send& message);
  void receive(const Recv& message);
  void settle(const Arrival& arrival, MPI_Status& status);
  MPI_Request* request();

  std::shared_ptr<Link> link_;
  Index number_;
  int tag_;
  int open_ = 0;                       // requests that are not done
  std::vector<MPI_Request> requests_;  // of what is sent, of the arrivals, and of thanks for them
  std::vector<Arrival> arrivals_;
  std::size_t first_arrival_ = 0;  // its place among the requests
  std::deque<Note> notes_;
  std::vector<int> done_;  // for advance()
  std::vector<MPI_Status> statuses_;
};

}  // namespace annulus::mpi

#include "annulus/transport/mpi.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include "annulus/transport/collectives.hpp"
#include "transport/mpi_batch.hpp"
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

namespace annulus {
namespace {

using mpi::check;

// Every process, with neighbours on the same node: nodes in the order of their first process. All processes together.
MPI_Comm ordered_by_node(int& ranks_on_this_node, int& place_on_this_node) {
  int world_rank = 0;
  check(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank), "MPI_Comm_rank");
  MPI_Comm node = MPI_COMM_NULL, ordered = MPI_COMM_NULL;
  check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_rank, MPI_INFO_NULL, &node),
        "MPI_Comm_split_type");
  check(MPI_Comm_size(node, &ranks_on_this_node), "MPI_Comm_size");
  check(MPI_Comm_rank(node, &place_on_this_node), "MPI_Comm_rank");
  int first = world_rank;
  check(MPI_Bcast(&first, 1, MPI_INT, 0, node), "MPI_Bcast");
  MPI_Comm_free(&node);
  check(MPI_Comm_split(MPI_COMM_WORLD, 0, first, &ordered), "MPI_Comm_split");  // equal keys: by their old rank
  return ordered;
}

class MpiTransport final : public Transport {
 public:
  MpiTransport(const MpiSession& session, const MpiOptions& options)
      : ranks_(session.ranks()), link_(std::make_shared<mpi::Link>()) {
    constexpr Index least = 4096, most = std::numeric_limits<int>::max();
    require(options.most_bytes_per_message >= least && options.most_bytes_per_message <= most,
            "most_bytes_per_message must be ", least, " to ", most, ": it is ", options.most_bytes_per_message);
    int ranks_here = 0, place_here = 0;
    link_->messages = ordered_by_node(ranks_here, place_here);
    link_->rank = session.rank();
    link_->crowded = ranks_here > static_cast<int>(std::thread::hardware_concurrency());
    link_->patience_seconds = options.patience_seconds;
    link_->most_bytes_per_message = options.most_bytes_per_message;
    check(MPI_Comm_set_errhandler(link_->messages, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    void* value = nullptr;
    int known = 0;
    check(MPI_Comm_get_attr(link_->messages, MPI_TAG_UB, &value, &known), "MPI_Comm_get_attr");
    if (known != 0) link_->tags = *static_cast<int*>(value);  // the last one is the alarm's
  }

  Rank rank() const override { return link_->rank; }
  int ranks() const override { return ranks_; }
  std::string_view name() const override { return link_->memory != nullptr ? "shared" : "mpi"; }
  SharedMemory* shared() override { return link_->memory.get(); }

  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override {
    return Pending(std::make_unique<mpi::Batch>(link_, batches_++, sends, recvs));
  }

  bool speaks() noexcept override {
    const auto until = [this](double seconds, Rank lowest) {  // the lowest rank that has raised the alarm by then
      const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
      do {
        std::unique_lock lock(mpi::calls());
        int heard = 0;
        MPI_Status status;
        while (MPI_Iprobe(MPI_ANY_SOURCE, alarm(), link_->messages, &heard, &status) == MPI_SUCCESS && heard != 0) {
          MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, alarm(), link_->messages, MPI_STATUS_IGNORE);
          lowest = std::min(lowest, status.MPI_SOURCE);
        }
        lock.unlock();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      } while (std::chrono::steady_clock::now() < end);
      return lowest;
    };
    // Whoever hears of another first is silent. Alarms that cross, within a journey of one another, are settled by rank.
    constexpr double journey_seconds = 0.2, speech_seconds = 2;
    Rank lowest = until(0, ranks_);
    if (lowest == ranks_) {
      raise_alarm();
      lowest = until(journey_seconds, ranks_);
      if (lowest > rank()) return true;
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(speech_seconds));
    return false;
  }

  void fail(const Error& reason) noexcept override {
    const std::lock_guard lock(mpi::calls());
    MPI_Abort(link_->messages, reason.exit_code());
  }

  // From now on messages between nodes go on while the ranks compute, but for those in the memory of a GPU, which belongs to
  // the thread that chose it. Once.
  void help(const MpiSession& session) {
    const bool distant = link_->memory == nullptr || link_->neighbours < ranks_;
    if (ranks_ > 1 && distant && session.takes_turns() && !MpiSession::knows_cuda())
      link_->helper = std::make_unique<mpi::Helper>(*link_);
  }

  // All ranks: from now on neighbours read one another's memory, or all throw the same Error.
  void share_memory(Index most_bytes) {
    MPI_Comm node = MPI_COMM_NULL;
    check(MPI_Comm_split_type(link_->messages, MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &node),
          "MPI_Comm_split_type");
    int place = 0, neighbours = 1;
    MPI_Comm_rank(node, &place);
    MPI_Comm_size(node, &neighbours);
    std::unique_ptr<NodeMemory> memory;
    const auto attempt = [&](const auto& part) {
      std::unique_ptr<Error> mine;
      try {
        part();
      } catch (const Error& e) {
        mine = std::make_unique<Error>(e);
      }
      agree(*this, mine.get());
    };
    std::vector<NodeMemory::Address> addresses(static_cast<std::size_t>(neighbours));
    try {
      attempt([&] { memory = std::make_unique<NodeMemory>(std::min(most_bytes, room_for(neighbours))); });
      const NodeMemory::Address mine = memory->address();
      check(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, addresses.data(), sizeof mine, MPI_BYTE, node),
            "MPI_Allgather");
      attempt([&] { memory->meet(addresses); });
    } catch (...) {
      MPI_Comm_free(&node);
      throw;
    }
    MPI_Comm_free(&node);
    check(MPI_Comm_dup(link_->messages, &link_->thanks), "MPI_Comm_dup");
    link_->first_neighbour = rank() - place;
    link_->neighbours = neighbours;
    link_->memory = std::move(memory);
  }

 private:
  int alarm() const { return static_cast<int>(link_->tags); }
  void raise_alarm() const {
    const std::lock_guard lock(mpi::calls());
    for (Rank other = 0; other < ranks_; ++other) {
      MPI_Request request = MPI_REQUEST_NULL;
      if (other != rank()) MPI_Isend(nullptr, 0, MPI_BYTE, other, alarm(), link_->messages, &request);
    }
  }

  // Addresses cost nothing, but all neighbours' memories must find a place among those of a process.
  static Index room_for(int neighbours) {
    constexpr Index addresses = Index{1} << 45;
    return std::min<Index>(2 * sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), addresses / neighbours);
  }

  int ranks_;
  std::shared_ptr<mpi::Link> link_;
  Index batches_ = 0;
};

}  // namespace

MpiSession::MpiSession() : exceptions_(std::uncaught_exceptions()) {
  int runs = 0, ended = 0, provided = 0;
  check(MPI_Finalized(&ended), "MPI_Finalized");
  require<Failure::communication>(ended == 0, "MPI has been finalised and cannot be started again");
  check(MPI_Initialized(&runs), "MPI_Initialized");
  if (runs != 0) {
    check(MPI_Query_thread(&provided), "MPI_Query_thread");
  } else {
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
    started_here_ = true;
  }
  require<Failure::communication>(provided >= MPI_THREAD_FUNNELED,
                                  "MPI must support threads: start it with MPI_Init_thread and MPI_THREAD_FUNNELED");
  takes_turns_ = provided >= (started_here_ ? MPI_THREAD_SERIALIZED : MPI_THREAD_MULTIPLE);
  MPI_Comm ordered = ordered_by_node(ranks_per_node_, node_rank_);
  check(MPI_Comm_rank(ordered, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(ordered, &ranks_), "MPI_Comm_size");
  std::vector<int> nodes(static_cast<std::size_t>(ranks_));
  check(MPI_Allgather(&ranks_per_node_, 1, MPI_INT, nodes.data(), 1, MPI_INT, ordered), "MPI_Allgather");
  neighbours_ = std::ranges::max(nodes) > 1;
  node_divisor_ = std::accumulate(nodes.begin(), nodes.end(), 0, [](int a, int b) { return std::gcd(a, b); });
  MPI_Comm_free(&ordered);
}

MpiSession::~MpiSession() {
  if (!started_here_) return;
  if (std::uncaught_exceptions() > exceptions_) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(Failure::runtime));
  MPI_Finalize();
}

std::string MpiSession::library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string all(text.data());
  return all.substr(0, all.find(','));
}

bool MpiSession::knows_cuda() {
#if defined(MPIX_CUDA_AWARE_SUPPORT) && MPIX_CUDA_AWARE_SUPPORT
  return MPIX_Query_cuda_support() == 1;
#else
  return false;
#endif
}

std::unique_ptr<Transport> make_mpi_transport(const MpiSession& session, const MpiOptions& options) {
  auto transport = std::make_unique<MpiTransport>(session, options);
  transport->help(session);
  return transport;
}

std::unique_ptr<Transport> make_shared_transport(const MpiSession& session, const MpiOptions& options) {
  auto transport = std::make_unique<MpiTransport>(session, options);
  transport->share_memory(options.most_shared_bytes);
  transport->help(session);
  return transport;
}

}  // namespace annulus

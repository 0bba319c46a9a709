#include "annulus/transport/mpi.hpp"

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace annulus {
namespace {

// Every vendor code becomes an Error here.
void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw Error(Failure::communication, sentence(what, " failed: ", text.data()));
}

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

class MpiBatch final : public Pending::Batch {
 public:
  MpiBatch(std::vector<MPI_Request> requests, Index batch, double patience_seconds)
      : requests_(std::move(requests)), batch_(batch), patience_seconds_(patience_seconds) {}
  MpiBatch(const MpiBatch&) = delete;
  MpiBatch& operator=(const MpiBatch&) = delete;
  // A batch given up takes its messages back, so that nobody writes to memory that is about to go. When all ranks give up
  // the same batch its messages still meet; when this rank alone fails there is nothing to wait for.
  ~MpiBatch() override {
    using Clock = std::chrono::steady_clock;
    int done = requests_.empty() ? 1 : 0;
    const auto deadline = Clock::now() + std::chrono::seconds(5);
    while (done == 0 && Clock::now() < deadline &&
           MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE) == MPI_SUCCESS)
      std::this_thread::yield();
    for (MPI_Request& request : requests_)
      if (request != MPI_REQUEST_NULL) MPI_Cancel(&request), MPI_Request_free(&request);
  }

  bool poll() override {
    int done = 0;
    check(MPI_Testall(narrow(static_cast<Index>(requests_.size())), requests_.data(), &done, MPI_STATUSES_IGNORE),
          "MPI_Testall");
    return done != 0;
  }

  void wait() override {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + std::chrono::duration<double>(patience_seconds_);
    for (Index round = 1; !poll(); ++round) {
      if (round % spins == 0) std::this_thread::yield();  // ranks may outnumber cores
      require<Failure::communication>(round % (16 * spins) != 0 || Clock::now() < deadline, "waited ",
                                      patience_seconds_, " s in batch ", batch_,
                                      " for its messages: a rank is lost or far behind");
    }
  }

 private:
  static constexpr Index spins = 16;
  std::vector<MPI_Request> requests_;
  Index batch_;
  double patience_seconds_;
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(const MpiSession& session, const MpiOptions& options)
      : options_(options), rank_(session.rank()), ranks_(session.ranks()) {
    int ranks_here = 0, place_here = 0;
    communicator_ = ordered_by_node(ranks_here, place_here);
    check(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    void* value = nullptr;
    int known = 0;
    check(MPI_Comm_get_attr(communicator_, MPI_TAG_UB, &value, &known), "MPI_Comm_get_attr");
    tags_ = known != 0 ? Index{*static_cast<int*>(value)} + 1 : Index{32768};
  }
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;
  ~MpiTransport() override { MPI_Comm_free(&communicator_); }

  Rank rank() const override { return rank_; }
  int ranks() const override { return ranks_; }
  std::string_view name() const override { return "mpi"; }

  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override {
    const Index batch = batches_++;
    const int tag = static_cast<int>(batch % tags_);
    std::vector<MPI_Request> requests;
    for (const Recv& recv : recvs)
      for_pieces(recv.bytes, [&](std::span<std::byte> piece) {
        check(MPI_Irecv(piece.data(), narrow(static_cast<Index>(piece.size())), MPI_BYTE, recv.from, tag, communicator_,
                        &requests.emplace_back()),
              "MPI_Irecv");
      });
    for (const Send& send : sends)
      for_pieces(send.bytes, [&](std::span<const std::byte> piece) {
        check(MPI_Isend(piece.data(), narrow(static_cast<Index>(piece.size())), MPI_BYTE, send.to, tag, communicator_,
                        &requests.emplace_back()),
              "MPI_Isend");
      });
    return Pending(std::make_unique<MpiBatch>(std::move(requests), batch, options_.patience_seconds));
  }

  void fail(const Error& reason) noexcept override { MPI_Abort(communicator_, reason.exit_code()); }

 private:
  // An empty message is one empty piece: lengths are checked by both sides knowing them, so it need not travel at all.
  template <class Bytes, class Work>
  void for_pieces(Bytes bytes, const Work& work) const {
    const auto most = static_cast<std::size_t>(options_.most_bytes_per_message);
    for (std::size_t at = 0; at < bytes.size(); at += most) work(bytes.subspan(at, std::min(most, bytes.size() - at)));
  }

  MpiOptions options_;
  MPI_Comm communicator_ = MPI_COMM_NULL;
  Rank rank_;
  int ranks_;
  Index tags_ = 32768, batches_ = 0;
};

}  // namespace

MpiSession::MpiSession() {
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  require<Failure::communication>(provided >= MPI_THREAD_FUNNELED, "MPI must support threads (MPI_THREAD_FUNNELED)");
  MPI_Comm ordered = ordered_by_node(ranks_per_node_, node_rank_);
  check(MPI_Comm_rank(ordered, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(ordered, &ranks_), "MPI_Comm_size");
  std::vector<int> nodes(static_cast<std::size_t>(ranks_));
  check(MPI_Allgather(&ranks_per_node_, 1, MPI_INT, nodes.data(), 1, MPI_INT, ordered), "MPI_Allgather");
  node_divisor_ = std::accumulate(nodes.begin(), nodes.end(), 0, [](int a, int b) { return std::gcd(a, b); });
  MPI_Comm_free(&ordered);
}

MpiSession::~MpiSession() { MPI_Finalize(); }

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
  return std::make_unique<MpiTransport>(session, options);
}

}  // namespace annulus

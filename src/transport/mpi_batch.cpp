#include "transport/mpi_batch.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>

namespace annulus::mpi {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t least_in_place = 256;  // what is shorter is sent: its bytes are hardly more than a note

// Cuts a message into pieces of nearly the same length, so that none is as short as a note. An empty message has none:
// both sides know its length.
template <class Bytes, class Work>
void for_pieces(Bytes bytes, Index most_bytes, const Work& work) {
  const auto most = static_cast<std::size_t>(most_bytes);
  const std::size_t pieces = (bytes.size() + most - 1) / most;
  for (std::size_t i = 0, at = 0; i < pieces; ++i) {
    const std::size_t length = bytes.size() / pieces + (i < bytes.size() % pieces ? 1 : 0);
    work(bytes.subspan(at, length), at);
    at += length;
  }
}

// As long as it lives the helper rests.
class Waiting {
 public:
  explicit Waiting(Link& link) : link_(link) { change(1); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() { change(-1); }

 private:
  void change(int by) {
    const std::lock_guard lock(calls());
    link_.waiting += by;
    if (by < 0 && link_.helper != nullptr) link_.helper->wake();
  }
  Link& link_;
};

}  // namespace

void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw Error(Failure::communication, sentence(what, " failed: ", text.data()));
}

void Link::advance() {
  for (Batch* batch : open) batch->advance();
}

Link::~Link() {
  helper.reset();
  if (thanks != MPI_COMM_NULL) MPI_Comm_free(&thanks);
  if (messages != MPI_COMM_NULL) MPI_Comm_free(&messages);
}

Batch::Batch(std::shared_ptr<Link> link, Index number, std::span<const Send> sends, std::span<const Recv> recvs)
    : link_(std::move(link)), number_(number), tag_(static_cast<int>(number % link_->tags)) {
  const std::lock_guard lock(calls());
  // Sends first. A long message is announced, and begins when the receiver has asked for it. Over TCP that request lies in
  // the same stream as the other direction's bytes: had it come after the request for those, it would wait behind all of them.
  std::atomic_thread_fence(std::memory_order_release);  // what is sent in place is written before its note
  for (const Send& send : sends) this->send(send);
  first_arrival_ = requests_.size();
  for (const Recv& recv : recvs) receive(recv);
  if (open_ == 0) return;
  link_->open.push_back(this);
  if (link_->helper != nullptr) link_->helper->wake();
}

Batch::~Batch() {
  // When all ranks give up the same batch its messages still meet; when this rank alone fails there is nothing to wait for.
  const auto deadline = Clock::now() + std::chrono::seconds(5);
  std::unique_lock lock(calls());
  try {
    while (open_ > 0 && Clock::now() < deadline) {
      link_->advance();
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
  } catch (const Error&) {  // told by whoever waits
    if (!lock.owns_lock()) lock.lock();
  }
  std::erase(link_->open, this);
  for (MPI_Request& request : requests_)
    if (request != MPI_REQUEST_NULL) MPI_Cancel(&request), MPI_Request_free(&request);
}

MPI_Request* Batch::request() {
  ++open_;
  return &requests_.emplace_back();
}

void Batch::receive(const Recv& message) {
  for_pieces(message.bytes, link_->most_bytes_per_message, [&](std::span<std::byte> piece, std::size_t at) {
    arrivals_.push_back({message.from, piece, message.seen, at});
    check(MPI_Irecv(piece.data(), narrow(static_cast<Index>(piece.size())), MPI_BYTE, message.from, tag_,
                    link_->messages, request()),
          "MPI_Irecv");
  });
}

void Batch::send(const Send& message) {
  std::optional<NodeMemory::Spot> spot;
  if (link_->memory != nullptr && link_->near(message.to) && message.bytes.size() >= least_in_place)
    spot = link_->memory->find(message.bytes.data());
  for_pieces(message.bytes, link_->most_bytes_per_message, [&](std::span<const std::byte> piece, std::size_t at) {
    const void* bytes = piece.data();
    auto length = static_cast<Index>(piece.size());
    if (spot) {
      bytes = &notes_.emplace_back(
          Note{{spot->owner, spot->offset + static_cast<Index>(at)}, piece.size(), message.lent ? 1 : 0});
      length = sizeof(Note);
    }
    check(MPI_Isend(bytes, narrow(length), MPI_BYTE, message.to, tag_, link_->messages, request()), "MPI_Isend");
    if (spot && !message.lent)
      check(MPI_Irecv(nullptr, 0, MPI_BYTE, message.to, tag_, link_->thanks, request()), "MPI_Irecv");
  });
}

void Batch::advance() {
  if (open_ == 0) return;
  int count = 0;
  done_.resize(requests_.size());
  statuses_.resize(requests_.size());
  check(MPI_Testsome(narrow(static_cast<Index>(requests_.size())), requests_.data(), &count, done_.data(),
                     statuses_.data()),
        "MPI_Testsome");
  for (int i = 0; i < count; ++i) {
    const auto place = static_cast<std::size_t>(done_[static_cast<std::size_t>(i)]);
    --open_;
    if (place >= first_arrival_ && place - first_arrival_ < arrivals_.size())
      settle(arrivals_[place - first_arrival_], statuses_[static_cast<std::size_t>(i)]);
  }
}

void Batch::settle(const Arrival& arrival, MPI_Status& status) {
  int length = 0;
  check(MPI_Get_count(&status, MPI_BYTE, &length), "MPI_Get_count");
  const auto require_length = [&](bool fits, std::uint64_t bytes) {
    require<Failure::communication>(fits, "a message from rank ", arrival.from, " to rank ", link_->rank, " in batch ",
                                    number_, " has ", bytes, " bytes where ", arrival.into.size(), " are expected");
  };
  if (static_cast<std::size_t>(length) == arrival.into.size()) return;
  require_length(link_->memory != nullptr && length == int{sizeof(Note)}, static_cast<std::uint64_t>(length));
  Note note;
  std::memcpy(&note, arrival.into.data(), sizeof note);
  require_length(note.bytes == arrival.into.size(), note.bytes);
  const std::byte* there = link_->memory->at(note.spot, static_cast<Index>(arrival.into.size()));
  std::atomic_thread_fence(std::memory_order_acquire);
  if (note.lent != 0 && arrival.seen != nullptr) {
    *arrival.seen = there - arrival.at;
    return;
  }
  std::memcpy(arrival.into.data(), there, arrival.into.size());
  if (note.lent != 0) return;
  std::atomic_thread_fence(std::memory_order_release);
  check(MPI_Isend(nullptr, 0, MPI_BYTE, arrival.from, tag_, link_->thanks, request()), "MPI_Isend");
}

bool Batch::poll() {
  const std::lock_guard lock(calls());
  if (link_->trouble != nullptr) std::rethrow_exception(link_->trouble);
  link_->advance();
  if (open_ == 0) std::erase(link_->open, this);
  return open_ == 0;
}

void Batch::wait() {
  const Waiting waiting(*link_);
  // Where ranks outnumber cores, whoever waits long takes time from those it waits for: yielding alone is not enough.
  constexpr Index spins = 16, patient = 16 * spins;
  constexpr std::chrono::microseconds nap(100);
  const auto deadline = Clock::now() + std::chrono::duration<double>(link_->patience_seconds);
  for (Index round = 1; !poll(); ++round) {
    if (round % spins == 0) {
      if (link_->crowded && round >= patient) {
        std::this_thread::sleep_for(nap);
      } else {
        std::this_thread::yield();
      }
    }
    require<Failure::communication>(round % (16 * spins) != 0 || Clock::now() < deadline, "waited ",
                                    link_->patience_seconds, " s in batch ", number_,
                                    " for its messages: a rank is lost or far behind");
  }
}

}  // namespace annulus::mpi

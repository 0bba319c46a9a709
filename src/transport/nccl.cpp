#include "annulus/transport/nccl.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "annulus/transport/collectives.hpp"
#include "memory/cuda/device.hpp"
#include "transport/nccl_library.hpp"

namespace annulus {
namespace {

using Clock = std::chrono::steady_clock;

// NCCL's communicator from its beginning to its end. Nothing waits without looking at the clock and at NCCL's errors.
class Communicator {
 public:
  Communicator(const ncclUniqueId& id, Rank rank, int ranks, const NcclOptions& options)
      : patience_seconds_(options.patience_seconds) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (options.most_blocks > 0) {
      config.minCTAs = 1;
      config.maxCTAs = options.most_blocks;
    }
    settle(api_.init_rank(&communicator_, ranks, id, rank, &config), "connecting the ranks");
  }
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  ~Communicator() {
    if (communicator_ == nullptr) return;
    if (std::uncaught_exceptions() > 0) {  // the others may never come to an orderly end
      abort();
      return;
    }
    try {
      settle(api_.finalize(communicator_), "ending NCCL");
      api_.destroy(communicator_);
    } catch (const Error&) {  // settle has ended it
    }
  }

  ncclComm_t get() const { return communicator_; }

  /// Turns a result into an Error, after waiting for calls that have only begun.
  void settle(ncclResult_t result, const std::string& what) {
    const auto deadline = Clock::now() + std::chrono::duration<double>(patience_seconds_);
    while (result == ncclInProgress) {
      if (Clock::now() > deadline)
        give_up(sentence("waited ", patience_seconds_, " s for ", what, ": a rank is lost or far behind"));
      std::this_thread::yield();
      if (communicator_ == nullptr || api_.async_error(communicator_, &result) != ncclSuccess) break;
    }
    if (result != ncclSuccess) give_up(sentence("NCCL failed in ", what, ": ", reason(result)));
  }

  /// Whether an error came up behind our back; throws it.
  void look(const std::string& what) {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = api_.async_error(communicator_, &state);
    if (asked != ncclSuccess) state = asked;
    if (state != ncclSuccess && state != ncclInProgress)
      give_up(sentence("NCCL failed in ", what, ": ", reason(state)));
  }

  [[noreturn]] void give_up(const std::string& why) {
    abort();
    throw Error(Failure::communication, why);
  }

  void abort() noexcept {
    if (communicator_ != nullptr) api_.abort(communicator_);
    communicator_ = nullptr;
  }

  bool ended() const { return communicator_ == nullptr; }

 private:
  std::string reason(ncclResult_t result) const {
    const char* detail = communicator_ != nullptr ? api_.last_error(communicator_) : nullptr;
    return sentence(api_.error_string(result), detail != nullptr && *detail != 0 ? sentence(" (", detail, ")") : "");
  }

  const nccl::Library& api_ = nccl::library();
  double patience_seconds_;
  ncclComm_t communicator_ = nullptr;
};

// Marks a place in a stream.
class Mark {
 public:
  Mark() { cuda::check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  ~Mark() { cudaEventDestroy(event_); }
  void set(cudaStream_t stream) { cuda::check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  void hold_back(cudaStream_t stream) const { cuda::check(cudaStreamWaitEvent(stream, event_), "cudaStreamWaitEvent"); }
  bool passed() const {
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaErrorNotReady) return false;
    cuda::check(state, "the exchange on the GPU");
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

struct Shared {  // by the transport and its batches
  Shared(const ncclUniqueId& id, Transport& bootstrap, const NcclOptions& options, cuda::CudaDevice& gpu)
      : device(gpu),
        patience_seconds(options.patience_seconds),
        others(bootstrap.start({}, {})),
        communicator(id, bootstrap.rank(), bootstrap.ranks(), options) {
    int least = 0, greatest = 0;
    cuda::check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    cuda::check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "cudaStreamCreateWithPriority");
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { cudaStreamDestroy(stream); }
  cuda::CudaDevice& device;
  double patience_seconds;
  Pending others;  ///< a batch of nothing, which throws where another rank has failed
  Communicator communicator;
  cudaStream_t stream = nullptr;
};

class NcclBatch final : public Pending::Batch {
 public:
  NcclBatch(std::shared_ptr<Shared> shared, std::string what) : shared_(std::move(shared)), what_(std::move(what)) {
    asked_.set(shared_->device.stream());
    asked_.hold_back(shared_->stream);
  }
  /// All messages have been asked for.
  void close() { done_.set(shared_->stream); }

  bool poll() override {
    shared_->device.use();
    if (done_.passed()) {
      done_.hold_back(shared_->device.stream());
      return true;
    }
    shared_->communicator.look(what_);
    return false;
  }

  // Patience begins when the batch does: the work before it takes as long as it takes.
  void wait() override {
    const std::chrono::duration<double> patience(shared_->patience_seconds);
    std::optional<Clock::time_point> begin;
    while (!poll()) {
      shared_->others.poll();
      if (!begin && asked_.passed()) begin = Clock::now();
      if (begin && Clock::now() - *begin > patience)
        shared_->communicator.give_up(
            sentence("waited ", shared_->patience_seconds, " s in ", what_, ": a rank is lost or far behind"));
      std::this_thread::yield();
    }
  }

 private:
  std::shared_ptr<Shared> shared_;
  std::string what_;
  Mark asked_, done_;
};

std::string peers_text(std::span<const Send> sends, std::span<const Recv> recvs) {
  std::string text;
  for (const Send& send : sends)
    if (!send.bytes.empty()) text += sentence(text.empty() ? "" : ", ", "a send to rank ", send.to);
  for (const Recv& recv : recvs)
    if (!recv.bytes.empty()) text += sentence(text.empty() ? "" : ", ", "a receive from rank ", recv.from);
  return text;
}

class Nccl final : public Transport {
 public:
  Nccl(Transport& bootstrap, cuda::CudaDevice& device, const NcclOptions& options)
      : bootstrap_(bootstrap), device_(device), rank_(bootstrap.rank()), ranks_(bootstrap.ranks()) {
    require(nccl_refusal().empty(), "there is no NCCL: ", nccl_refusal());
    device.use();
    if (!options.share_gpu) refuse_shared_gpus();
    ncclUniqueId id{};
    std::vector<std::byte> bytes(sizeof id);
    if (rank_ == 0) {
      require<Failure::communication>(api_.get_unique_id(&id) == ncclSuccess, "NCCL cannot open its network");
      std::memcpy(bytes.data(), &id, sizeof id);
    }
    broadcast(bootstrap, 0, bytes);
    std::memcpy(&id, bytes.data(), sizeof id);
    shared_ = std::make_shared<Shared>(id, bootstrap, options, device);
    double usable = options.register_memory && !options.share_gpu && device.memory_is(nccl_memory()) ? 0 : 1;
    all_max(bootstrap, {&usable, 1});
    in_place_ = usable == 0;
    if (in_place_) device.before_free([this](std::byte* memory) { forget(memory); });
    meet_everybody();
  }
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;
  ~Nccl() override {
    if (!in_place_) return;
    device_.before_free({});
    if (shared_->communicator.ended() || std::uncaught_exceptions() > 0) return;
    for (const auto& [memory, handle] : registered_) api_.deregister_memory(shared_->communicator.get(), handle);
  }

  Rank rank() const override { return rank_; }
  int ranks() const override { return ranks_; }
  std::string_view name() const override { return "nccl"; }

  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override {
    const Index batch = batches_++;
    const std::string peers = peers_text(sends, recvs);
    if (peers.empty()) return {};
    const std::string what = sentence("batch ", batch, " with ", peers);
    require<Failure::communication>(!shared_->communicator.ended(), "NCCL has ended before ", what);
    device_.use();
    auto pending = std::make_unique<NcclBatch>(shared_, what);
    for (const Send& send : sends) know(send.bytes);
    for (const Recv& recv : recvs) know(recv.bytes);
    ncclComm* const communicator = shared_->communicator.get();
    shared_->communicator.settle(api_.group_start(), what);
    // Results inside a group say whether the arguments are right; all is begun by its end.
    const auto note = [&](ncclResult_t result) {
      if (result != ncclSuccess && result != ncclInProgress) shared_->communicator.settle(result, what);
    };
    for (const Send& send : sends)
      if (!send.bytes.empty())
        note(api_.send(send.bytes.data(), send.bytes.size(), ncclInt8, send.to, communicator, shared_->stream));
    for (const Recv& recv : recvs)
      if (!recv.bytes.empty())
        note(api_.recv(recv.bytes.data(), recv.bytes.size(), ncclInt8, recv.from, communicator, shared_->stream));
    shared_->communicator.settle(api_.group_end(), what);
    pending->close();
    return Pending(std::move(pending));
  }

  void fail(const Error& reason) noexcept override {
    shared_->communicator.abort();
    bootstrap_.fail(reason);
  }

 private:
  // Two ranks with one GPU would wait for each other inside NCCL, or be refused by it with less to go by.
  void refuse_shared_gpus() {
    struct Seat {
      std::array<char, 64> host{};
      std::array<char, 16> uuid{};
      bool operator==(const Seat&) const = default;
    } mine;
    gethostname(mine.host.data(), mine.host.size() - 1);
    std::memcpy(mine.uuid.data(), device_.properties().uuid.bytes, mine.uuid.size());
    const auto all = all_gather(bootstrap_, std::as_bytes(std::span(&mine, 1)));
    std::vector<Seat> seats(all.size());
    for (std::size_t r = 0; r < all.size(); ++r) std::memcpy(&seats[r], all[r].data(), sizeof(Seat));
    for (std::size_t a = 0; a < seats.size(); ++a)
      for (std::size_t b = a + 1; b < seats.size(); ++b)
        require(!(seats[a] == seats[b]), "ranks ", a, " and ", b, " have the same GPU, ", device_.properties().name,
                " of ", seats[a].host.data(), ": start one rank per GPU (or share it with --share-gpu, for tests)");
  }

  // NCCL connects two ranks when they first meet, which takes long: here, and not inside a measured step.
  void meet_everybody() {
    constexpr Index word = 512;
    Array out = Array::zeros(device_, DType::f32, ranks_, 1, word / 4), in(device_, DType::f32, ranks_, 1, word / 4);
    std::vector<Send> sends;
    std::vector<Recv> recvs;
    for (Rank r = 0; r < ranks_; ++r) {
      sends.push_back({r, out.rows().span(r, r + 1)});
      recvs.push_back({r, in.rows().span(r, r + 1)});
    }
    start(sends, recvs).wait();
    batches_ = 0;
  }

  // Tells NCCL of memory that it has not seen before: of all that travels, since it would wait forever where one end of a
  // message is known to it and the other is not.
  void know(std::span<const std::byte> bytes) {
    if (!in_place_ || bytes.empty()) return;
    const auto piece = device_.allocation_of(bytes.data());
    require(piece.bytes > 0, "a message lies outside the memory that ", device_.name(),
            " has given out: NCCL cannot exchange it in place (NcclOptions::register_memory)");
    if (registered_.contains(piece.base)) return;
    void* handle = nullptr;
    shared_->communicator.settle(
        api_.register_memory(shared_->communicator.get(), piece.base, static_cast<std::size_t>(piece.bytes), &handle),
        "registering memory");
    registered_[piece.base] = handle;
  }

  void forget(std::byte* memory) {
    const auto found = registered_.find(memory);
    if (found == registered_.end()) return;
    if (!shared_->communicator.ended()) api_.deregister_memory(shared_->communicator.get(), found->second);
    registered_.erase(found);
  }

  const nccl::Library& api_ = nccl::library();
  Transport& bootstrap_;
  cuda::CudaDevice& device_;
  Rank rank_;
  int ranks_;
  std::shared_ptr<Shared> shared_;
  bool in_place_ = false;
  std::map<std::byte*, void*> registered_;
  Index batches_ = 0;
};

}  // namespace

std::unique_ptr<Transport> make_nccl_transport(Transport& bootstrap, Device& device, const NcclOptions& options) {
  return std::make_unique<Nccl>(bootstrap, cuda::as_cuda(device), options);
}

}  // namespace annulus

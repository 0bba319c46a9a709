#include "annulus/transport/staged.hpp"

#include <vector>

namespace annulus {
namespace {

// Staging memory, kept for the next message.
class Stage {
 public:
  Stage(Device& device, Index bytes) : device_(device), memory_(device.allocate(bytes)), bytes_(bytes) {}
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  ~Stage() { device_.release(memory_, bytes_); }
  Index bytes() const { return bytes_; }
  std::span<std::byte> part(std::size_t length) const { return {memory_, length}; }

 private:
  Device& device_;
  std::byte* memory_;
  Index bytes_;
};

using Stages = std::vector<std::unique_ptr<Stage>>;

class StagedBatch final : public Pending::Batch {
 public:
  struct Arrival {
    std::span<std::byte> from, to;
  };
  StagedBatch(Pending inner, std::vector<Arrival> arrivals, Stages stages, Device& device, std::shared_ptr<Stages> idle)
      : inner_(std::move(inner)),
        arrivals_(std::move(arrivals)),
        stages_(std::move(stages)),
        device_(device),
        idle_(std::move(idle)) {}

  bool poll() override {
    if (!inner_.poll()) return false;
    settle();
    return true;
  }

  void wait() override {
    inner_.wait();
    settle();
  }

 private:
  void settle() {
    for (const Arrival& a : arrivals_) device_.copy(a.to.data(), a.from.data(), static_cast<Index>(a.from.size()));
    arrivals_.clear();
    for (auto& stage : stages_) idle_->push_back(std::move(stage));
    stages_.clear();
  }

  Pending inner_;
  std::vector<Arrival> arrivals_;
  Stages stages_;
  Device& device_;
  std::shared_ptr<Stages> idle_;
};

class Staged final : public Transport {
 public:
  Staged(Transport& inner, Device& device, Device& staging)
      : inner_(inner), device_(device), staging_(staging), name_(sentence(inner.name(), ", staged")) {}
  Rank rank() const override { return inner_.rank(); }
  int ranks() const override { return inner_.ranks(); }
  std::string_view name() const override { return name_; }

  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override {
    Stages stages;
    std::vector<Send> out;
    std::vector<Recv> in;
    std::vector<StagedBatch::Arrival> arrivals;
    for (const Send& send : sends) {
      const auto staged = stage(stages, send.bytes.size());
      device_.copy(staged.data(), send.bytes.data(), static_cast<Index>(staged.size()));
      out.push_back({send.to, staged});
    }
    for (const Recv& recv : recvs) {
      const auto staged = stage(stages, recv.bytes.size());
      arrivals.push_back({staged, recv.bytes});
      in.push_back({recv.from, staged});
    }
    return Pending(
        std::make_unique<StagedBatch>(inner_.start(out, in), std::move(arrivals), std::move(stages), device_, idle_));
  }

  void fail(const Error& reason) noexcept override { inner_.fail(reason); }

 private:
  // The smallest idle piece that is large enough, or a new one.
  std::span<std::byte> stage(Stages& taken, std::size_t length) {
    const auto bytes = static_cast<Index>(length);
    auto best = idle_->end();
    for (auto it = idle_->begin(); it != idle_->end(); ++it)
      if ((*it)->bytes() >= bytes && (best == idle_->end() || (*it)->bytes() < (*best)->bytes())) best = it;
    if (best == idle_->end()) {
      taken.push_back(std::make_unique<Stage>(staging_, std::max<Index>(bytes, 1)));
    } else {
      taken.push_back(std::move(*best));
      idle_->erase(best);
    }
    return taken.back()->part(length);
  }

  Transport& inner_;
  Device& device_;
  Device& staging_;
  std::string name_;
  std::shared_ptr<Stages> idle_ = std::make_shared<Stages>();
};

class Direct final : public Transport {
 public:
  Direct(Transport& inner, Device& device)
      : inner_(inner), device_(device), name_(sentence(inner.name(), ", direct")) {}
  Rank rank() const override { return inner_.rank(); }
  int ranks() const override { return inner_.ranks(); }
  std::string_view name() const override { return name_; }
  Pending start(std::span<const Send> sends, std::span<const Recv> recvs) override {
    // what is sent may still be computed, and what is overwritten still be read
    if (!sends.empty() || !recvs.empty()) device_.finish();
    return inner_.start(sends, recvs);
  }
  void fail(const Error& reason) noexcept override { inner_.fail(reason); }

 private:
  Transport& inner_;
  Device& device_;
  std::string name_;
};

}  // namespace

std::unique_ptr<Transport> make_direct_transport(Transport& inner, Device& device) {
  return std::make_unique<Direct>(inner, device);
}

std::unique_ptr<Transport> make_staged_transport(Transport& inner, Device& device, Device& staging) {
  return std::make_unique<Staged>(inner, device, staging);
}

}  // namespace annulus

#include "annulus/engine/recorded.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

namespace annulus {
namespace {

class RecordedBatch final : public Pending::Batch {
 public:
  RecordedBatch(Pending inner, Timeline& timeline, std::vector<Message> messages, Index batch)
      : inner_(std::move(inner)),
        timeline_(timeline),
        messages_(std::move(messages)),
        batch_(batch),
        control_(std::ranges::all_of(messages_, &Message::control)) {}
  bool poll() override {
    const bool done = inner_.poll();
    if (done) settle();
    return done;
  }
  void wait() override {
    {
      // the engine's own span, which knows the step, swallows a wait for rows
      const Timeline::Span span(timeline_, control_ ? "control" : "wait", control_ ? batch_ : 0);
      inner_.wait();
    }
    settle();
  }

 private:
  void settle() {
    for (Message& message : messages_) {
      message.end_seconds = timeline_.now();
      timeline_.record(message);
    }
    messages_.clear();
  }
  Pending inner_;
  Timeline& timeline_;
  std::vector<Message> messages_;  // not yet seen to be done
  Index batch_;
  bool control_;
};

}  // namespace

Pending RecordedTransport::start(std::span<const Send> sends, std::span<const Recv> recvs) {
  const double begins = timeline_.now();
  const Index batch = batches_++;
  std::vector<Message> messages;
  std::map<Rank, int> to, from;
  const auto note = [&](bool sent, Rank peer, std::size_t bytes, int place, bool control) {
    if (bytes > 0) messages.push_back({sent, peer, static_cast<Index>(bytes), batch, place, begins, begins, control});
  };
  for (const Send& send : sends) note(true, send.to, send.bytes.size(), to[send.to]++, send.control);
  for (const Recv& recv : recvs) note(false, recv.from, recv.bytes.size(), from[recv.from]++, recv.control);
  return Pending(std::make_unique<RecordedBatch>(inner_.start(sends, recvs), timeline_, std::move(messages), batch));
}

double clock_offset(Transport& transport, const Timeline& timeline, int rounds) {
  double offset = 0;
  const auto bytes = [](double& value) { return std::as_writable_bytes(std::span(&value, 1)); };
  // one rank after another, so that round trips do not disturb one another; batches keep their numbers everywhere
  for (Rank peer = 1; peer < transport.ranks(); ++peer) {
    double fastest = std::numeric_limits<double>::infinity();
    for (int round = 0; round < rounds; ++round) {
      const bool asks = transport.rank() == peer, answers = transport.rank() == 0;
      double question = timeline.now(), answer = 0;
      std::vector<Send> sends;
      std::vector<Recv> recvs;
      if (asks) sends.push_back({0, bytes(question)});
      if (answers) recvs.push_back({peer, bytes(answer)});
      transport.start(sends, recvs).wait();
      sends.clear();
      recvs.clear();
      if (answers) answer = timeline.now(), sends.push_back({peer, bytes(answer)});
      if (asks) recvs.push_back({0, bytes(answer)});
      transport.start(sends, recvs).wait();
      const double trip = timeline.now() - question;
      if (!asks || trip >= fastest) continue;
      fastest = trip;
      offset = answer - (question + trip / 2);
    }
  }
  return offset;
}

}  // namespace annulus

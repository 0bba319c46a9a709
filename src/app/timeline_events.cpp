#include "app/timeline_events.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

// Events as they are made: each a line.
class Lines {
 public:
  void add(const json& event) { text_ += (text_.empty() ? "" : ",\n") + event.dump(); }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

json named(const char* what, Rank rank, int track, const std::string& name) {
  return {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", track}, {"args", {{"name", name}}}};
}

// Messages overlap in time and slices of one track must not: each goes to the first track of its kind that is free.
class Tracks {
 public:
  Tracks(std::string name, int& next) : name_(std::move(name)), next_(next) {}
  int take(double begin, double end, Rank rank, Lines& lines) {
    for (auto& [track, busy_until] : tracks_)
      if (busy_until <= begin) {
        busy_until = end;
        return track;
      }
    tracks_.emplace_back(next_++, end);
    lines.add(named("thread_name", rank, tracks_.back().first, name_));
    return tracks_.back().first;
  }

 private:
  std::string name_;
  int& next_;
  std::vector<std::pair<int, double>> tracks_;  // track, the time it is busy until
};

// In 64ths of a microsecond: exact, so that what follows one another does not overlap by a rounding, and short.
double microseconds(const RankTrack& of, double seconds) { return std::round(of.microseconds(seconds) * 64) / 64; }

// A slice, and one end of the arrow from the send to the receive.
void add_message(const Message& m, const RankTrack& of, int track, double begin, double end, Lines& lines) {
  const json where{{"pid", of.rank}, {"tid", track}};
  json slice{{"name", m.sent ? "send" : "receive"},
             {"cat", "message"},
             {"ph", "X"},
             {"ts", begin},
             {"dur", end - begin},
             {"args", {{m.sent ? "to" : "from", m.peer}, {"bytes", m.bytes}, {"batch", m.batch}}}};
  slice.update(where);
  lines.add(slice);
  if (m.peer >= of.ranks) return;
  const Rank from = m.sent ? of.rank : m.peer, to = m.sent ? m.peer : of.rank;
  json arrow{{"name", "message"},
             {"cat", "message"},
             {"ph", m.sent ? "s" : "f"},
             {"ts", m.sent ? begin : end},
             {"id", sentence(from, ">", to, "#", m.batch, ".", m.place)}};
  if (!m.sent) arrow["bp"] = "e";
  arrow.update(where);
  lines.add(arrow);
}

void add_messages(const RankTrack& of, Lines& lines) {
  int next = 1;
  Tracks sends("send", next), receives("receive", next);
  std::vector<Message> messages(of.messages.begin(), of.messages.end());
  std::ranges::stable_sort(messages, {}, &Message::begin_seconds);
  for (const Message& m : messages) {
    if (m.control) continue;  // a few bytes each, before and after everything: they would hide the rest
    const double begin = microseconds(of, m.begin_seconds), end = microseconds(of, m.end_seconds);
    add_message(m, of, (m.sent ? sends : receives).take(begin, end, of.rank, lines), begin, end, lines);
  }
}

}  // namespace

std::string timeline_events(const RankTrack& of) {
  Lines lines;
  lines.add(named("process_name", of.rank, 0, of.name));
  lines.add(named("thread_name", of.rank, 0, "work"));
  for (const Event& event : of.events) {
    const double begin = microseconds(of, event.begin_seconds);
    const bool control = event.what == "control";
    lines.add({{"name", event.what},
               {"cat", control ? "control" : "work"},
               {"ph", "X"},
               {"pid", of.rank},
               {"tid", 0},
               {"ts", begin},
               {"dur", microseconds(of, event.end_seconds) - begin},
               {"args", {{control ? "batch" : "step", event.step}}}});
  }
  add_messages(of, lines);
  return lines.take();
}

std::string timeline_text(std::span<const std::string> events_of_ranks, const json& about) {
  const json frame{{"displayTimeUnit", "ms"}, {"otherData", about}};
  std::string text = frame.dump();
  text.back() = ',';  // the events are text already
  text += "\"traceEvents\":[\n";
  for (std::size_t rank = 0; rank < events_of_ranks.size(); ++rank)
    text += (rank > 0 ? ",\n" : "") + events_of_ranks[rank];
  return text + "\n]}\n";
}

}  // namespace annulus::app

#include "app/timeline_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "annulus/engine/recorded.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/text_draft.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

// A rank's clock in rank 0's seconds: offsets measured at two times, and a straight line through them.
struct AlignedClock {
  double first = 0, last = 0, first_offset = 0, last_offset = 0;
  double microseconds(double seconds) const {
    const double share = last > first ? (seconds - first) / (last - first) : 0;
    return (seconds + first_offset + share * (last_offset - first_offset)) * 1e6;
  }
};

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

json named(const char* what, Rank rank, int track, const std::string& name) {
  return {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", track}, {"args", {{"name", name}}}};
}

// Messages overlap in time and slices of one track must not: each goes to the first track of its kind that is free.
class Tracks {
 public:
  Tracks(std::string name, int& next) : name_(std::move(name)), next_(next) {}
  int take(double begin, double end, Rank rank, json& events) {
    for (auto& [track, busy_until] : tracks_)
      if (busy_until <= begin) {
        busy_until = end;
        return track;
      }
    tracks_.emplace_back(next_++, end);
    events.push_back(named("thread_name", rank, tracks_.back().first, name_));
    return tracks_.back().first;
  }

 private:
  std::string name_;
  int& next_;
  std::vector<std::pair<int, double>> tracks_;  // track, the time it is busy until
};

void add_messages(const Timeline& timeline, const AlignedClock& clock, Rank rank, json& events) {
  int next = 1;
  Tracks sends("send", next), receives("receive", next);
  std::vector<Message> messages = timeline.messages();
  std::ranges::stable_sort(messages, {}, &Message::begin_seconds);
  for (const Message& m : messages) {
    if (m.control) continue;  // a few bytes each, before and after everything: they would hide the rest
    const double begin = clock.microseconds(m.begin_seconds), end = clock.microseconds(m.end_seconds);
    const int track = (m.sent ? sends : receives).take(begin, end, rank, events);
    const json where{{"pid", rank}, {"tid", track}};
    json slice{{"name", m.sent ? "send" : "receive"},
               {"cat", "message"},
               {"ph", "X"},
               {"ts", begin},
               {"dur", end - begin},
               {"args", {{m.sent ? "to" : "from", m.peer}, {"bytes", m.bytes}, {"batch", m.batch}}}};
    const Rank from = m.sent ? rank : m.peer, to = m.sent ? m.peer : rank;
    json arrow{{"name", "message"},
               {"cat", "message"},
               {"ph", m.sent ? "s" : "f"},
               {"ts", m.sent ? begin : end},
               {"id", sentence(from, ">", to, "#", m.batch, ".", m.place)}};
    if (!m.sent) arrow["bp"] = "e";
    slice.update(where);
    arrow.update(where);
    events.push_back(std::move(slice));
    events.push_back(std::move(arrow));
  }
}

json events_of(const Timeline& timeline, const AlignedClock& clock, Rank rank) {
  json events{named("process_name", rank, 0, sentence("rank ", rank, " on ", host_name())),
              named("thread_name", rank, 0, "work")};
  for (const Event& event : timeline.events()) {
    const double begin = clock.microseconds(event.begin_seconds);
    const bool control = event.what == "control";
    events.push_back({{"name", event.what},
                      {"cat", control ? "control" : "work"},
                      {"ph", "X"},
                      {"pid", rank},
                      {"tid", 0},
                      {"ts", begin},
                      {"dur", clock.microseconds(event.end_seconds) - begin},
                      {"args", {{control ? "batch" : "step", event.step}}}});
  }
  add_messages(timeline, clock, rank, events);
  return events;
}

void run_recorded(const Settings& settings, RankTools& tools, const std::function<void(RankTools&)>& body) {
  std::optional<TextDraft> draft;
  together(tools.transport, [&] {
    if (tools.lead) draft.emplace(settings.name_of("timeline"), settings.text("timeline"));
  });
  AlignedClock clock;
  clock.first_offset = clock_offset(tools.transport, tools.timeline);
  clock.first = tools.timeline.now();
  RecordedTransport transport(tools.transport, tools.timeline);
  RankTools recorded_tools = tools.over(transport);
  body(recorded_tools);
  clock.last_offset = clock_offset(tools.transport, tools.timeline);
  clock.last = tools.timeline.now();
  const std::string mine = events_of(tools.timeline, clock, tools.transport.rank()).dump();
  const auto all = gather(tools.transport, 0, std::as_bytes(std::span(mine)));
  together(tools.transport, [&] {
    if (!tools.lead) return;
    json events = json::array();
    for (const auto& bytes : all) {
      const auto* first = reinterpret_cast<const char*>(bytes.data());
      for (auto& event : json::parse(first, first + bytes.size())) events.push_back(std::move(event));
    }
    draft->commit(json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump() + "\n");
  });
}

}  // namespace

std::function<void(RankTools&)> recorded(const Settings& settings, std::function<void(RankTools&)> body) {
  if (!settings.has("timeline")) return body;
  return [&settings, body = std::move(body)](RankTools& tools) { run_recorded(settings, tools, body); };
}

}  // namespace annulus::app

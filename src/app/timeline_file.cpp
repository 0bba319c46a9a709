#include "app/timeline_file.hpp"

#include <unistd.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/engine/recorded.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/text_draft.hpp"
#include "app/timeline_events.hpp"

namespace annulus::app {
namespace {

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

void run_recorded(const Settings& settings, RankTools& tools, const std::function<void(RankTools&)>& body) {
  std::optional<TextDraft> draft;
  together(tools.transport, [&] {
    if (tools.lead) draft.emplace(settings.name_of("timeline"), settings.text("timeline"));
  });
  tools.timeline.keep(true);
  AlignedClock clock;
  clock.first_offset = clock_offset(tools.transport, tools.timeline);
  clock.first = tools.timeline.now();
  RecordedTransport transport(tools.transport, tools.timeline);
  RankTools recorded_tools = tools.over(transport);
  body(recorded_tools);
  clock.last_offset = clock_offset(tools.transport, tools.timeline);
  clock.last = tools.timeline.now();
  const Rank rank = tools.transport.rank();
  const std::string mine = timeline_events({.rank = rank,
                                            .name = sentence("rank ", rank, " on ", host_name()),
                                            .events = tools.timeline.events(),
                                            .messages = tools.timeline.messages(),
                                            .microseconds = [&](double seconds) { return clock.microseconds(seconds); },
                                            .ranks = tools.transport.ranks()});
  const auto all = gather(tools.transport, 0, std::as_bytes(std::span(mine)));
  together(tools.transport, [&] {
    if (!tools.lead) return;
    std::vector<std::string> events;
    for (const auto& bytes : all) events.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    draft->commit(timeline_text(events, {{"times", "measured"}, {"program", sentence("annulus ", ANNULUS_VERSION)}}));
  });
}

}  // namespace

std::function<void(RankTools&)> recorded(const Settings& settings, std::function<void(RankTools&)> body) {
  if (!settings.has("timeline")) return body;
  return [&settings, body = std::move(body)](RankTools& tools) { run_recorded(settings, tools, body); };
}

}  // namespace annulus::app

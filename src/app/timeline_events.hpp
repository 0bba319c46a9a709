#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "annulus/timeline/event.hpp"

namespace annulus::app {

/// What --timeline writes of one rank, measured or predicted.
struct RankTrack {
  Rank rank = 0;
  std::string name;  ///< of its process in the viewer
  std::span<const Event> events;
  std::span<const Message> messages;
  std::function<double(double)> microseconds;  ///< of its seconds, on the clock that all ranks of the file share
  Rank ranks = 0;                              ///< in the file: the first ones; messages of others have no arrow
};

/// The rank's process: a track of what it did (compute, wait, merge; control: agreements, whose few bytes are not shown), tracks of
/// the rows it sent and received, and its ends of the arrows from sends to receives. One event a line.
std::string timeline_events(const RankTrack& track);

/// The file that Chrome and Perfetto load. about: what else is known of it ("otherData").
std::string timeline_text(std::span<const std::string> events_of_ranks, const nlohmann::json& about);

}  // namespace annulus::app

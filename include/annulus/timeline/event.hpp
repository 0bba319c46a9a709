#pragma once
#include <string_view>

#include "annulus/base/types.hpp"

namespace annulus {

/// What one rank did, when. `what` is a literal.
struct Event {
  std::string_view what;
  Index step = 0;
  double begin_seconds = 0, end_seconds = 0;  ///< since the timeline began
};

/// Bytes on their way to or from this rank: from the start of their batch until the rank saw that the batch was done.
struct Message {
  bool sent = false;
  Rank peer = 0;
  Index bytes = 0;
  Index batch = 0;  ///< the same number on both sides
  int place = 0;    ///< the how-maniest between the two ranks in its batch
  double begin_seconds = 0, end_seconds = 0;
  bool control = false;  ///< not rows but an agreement: see Send
};

}  // namespace annulus

#pragma once
#include "annulus/timeline/timeline.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus::app {

/// Lets ranks begin what is measured at the same moment. A barrier cannot: out of it one rank comes up to a message's latency
/// after another, and what the later one sends is missed for so long.
class CommonStart {
 public:
  /// All ranks: sets their clocks by rank 0's.
  explicit CommonStart(Transport& transport);
  /// All ranks; ends on all of them at once, as exactly as half of the fastest round trip to rank 0.
  void wait();

 private:
  Transport& transport_;
  Timeline clock_;
  double offset_;
};

}  // namespace annulus::app

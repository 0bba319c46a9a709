#include "app/common_start.hpp"

#include <thread>

#include "annulus/engine/recorded.hpp"
#include "annulus/transport/collectives.hpp"

namespace annulus::app {

CommonStart::CommonStart(Transport& transport) : transport_(transport), offset_(clock_offset(transport, clock_, 8)) {}

void CommonStart::wait() {
  double last = clock_.now() + offset_;
  all_max(transport_, {&last, 1});  // when the last rank came
  double longest = clock_.now() + offset_ - last;
  all_max(transport_, {&longest, 1});  // until a rank knew
  // the second round is over when two such times have passed, or a little later
  const double begins = last + 3 * longest;
  while (clock_.now() + offset_ < begins) std::this_thread::yield();
}

}  // namespace annulus::app

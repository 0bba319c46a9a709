#pragma once
#include <vector>

#include "annulus/timeline/event.hpp"

namespace annulus {

/// What the simulation says that each of the first ranks does when, in the words of the engine's own timelines; seconds since the
/// first pass began, the passes one after the other. On every rank the events follow one another without a gap:
///   compute   a step's tiles; step: the seat that owns the block
///   merge     clearing, adding and normalising rows, and what a pass takes besides
///   wait      for rows; at the end of a pass for the slowest rank
/// so `compute` of the rank that computes longest is PassTime::compute_seconds, and all the rest on it the exposed time.
/// A message is all that goes from one rank to another in a batch (the engine sends a message per range of rows). It ends when all
/// of its batch is there.
struct Prediction {
  struct OfRank {
    std::vector<Event> events;  ///< in order of time
    std::vector<Message> messages;
  };
  std::vector<OfRank> ranks;
};

}  // namespace annulus

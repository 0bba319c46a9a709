#pragma once
#include "annulus/model/transformer.hpp"
#include "model/checkpoint/config.hpp"

namespace annulus {

/// What rotary positions depend on beside the configuration's own section on them.
struct RotarySubject {
  Index channels = 0;   ///< of a head, that are turned
  double base = 10000;  ///< where the section has none
  Index positions = 0;  ///< trained for
  Index tokens = 0;     ///< of the longest document
};

/// config: whose original_max_position_embeddings, if it has one, goes before the section's. scaling: rope_scaling or rope_parameters, an object; nullptr: none. Throws Error (file) for a kind that is not known.
Rotary make_rotary(const Config& config, const Config* scaling, const RotarySubject& subject);

}  // namespace annulus

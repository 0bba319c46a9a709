#pragma once
#include <cstdint>
#include <vector>

#include "input/tokenizer/json.hpp"

namespace annulus {

/// Ids that stand around a single text.
struct Surroundings {
  std::vector<std::uint32_t> before, after;
};

/// What tokenizer.json's post_processor says.
Surroundings read_post_processor(const Node& node);

}  // namespace annulus

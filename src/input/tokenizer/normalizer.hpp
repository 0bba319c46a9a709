#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "input/tokenizer/json.hpp"
#include "input/tokenizer/traced.hpp"

namespace annulus {

/// Rewrites a text before it is split.
class Rewrite {
 public:
  virtual ~Rewrite() = default;
  /// The part of the text, changed; nothing where it would stay as it is.
  virtual std::optional<Traced> apply(const Traced& text, Bytes part) const = 0;
};

/// What tokenizer.json's normalizer says.
struct Normalizer {
  std::vector<std::unique_ptr<Rewrite>> steps;
  std::string space;  ///< what a Replace puts in the place of a space; empty where there is none

  /// The part of the text after all steps; nothing where it stays as it is.
  std::optional<Traced> apply(const Traced& text, Bytes part) const;
  std::string apply(std::string_view text) const;
};

Normalizer read_normalizer(const Node& node);

}  // namespace annulus

#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "app/layers.hpp"

namespace annulus::app {

/// A number of every layer and head: a mean over queries that see a key.
struct Measure {
  std::string
      name;  ///< of the trace, or "itself", "previous", "first", "induction": shares of attention, of the kept keys
  std::string label;                ///< "distance, tokens"
  std::string superlative;          ///< "looks farthest"
  double most = NAN;                ///< it can be; NaN: there is no end
  std::vector<double> values = {};  ///< [layer, head]; NaN: not known

  bool known() const;
};

/// What the heads of all traced layers do.
struct HeadMeans {
  std::vector<Layer> layers;
  Index tokens = 0, heads = 0, kept = 0;
  Index queries = 0, kept_queries = 0;  ///< that were looked at, of traces and of the kept keys
  std::vector<Measure> traces, roles;

  std::size_t place(std::size_t layer, Index head) const {
    return layer * static_cast<std::size_t>(heads) + static_cast<std::size_t>(head);
  }
  struct Head {
    std::size_t layer;
    Index head;
    double value;
  };
  /// At most `count` heads of those with a number, the largest first.
  std::vector<Head> strongest(const Measure& measure, std::size_t count) const;
};

/// Queries are spread evenly over all where they are many. Layers may lack a trace. Throws Error (file) when layers are not of the same
/// tokens and heads, or not of those of /tokens.
HeadMeans head_means(const InputFile& file, const std::vector<Layer>& traced);

}  // namespace annulus::app

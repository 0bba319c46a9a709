#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"

namespace annulus::app {

/// Means of a number that every token and head has, and of neighbouring tokens: the points of curves. What is no finite number is left
/// out.
class Along {
 public:
  Along(Index tokens, Index heads);
  void add(Index token, Index head, double value);

  Index tokens() const { return tokens_; }
  Index heads() const { return heads_; }
  /// Tokens of a point.
  Index each() const { return each_; }
  /// NaN where a head has no number.
  double mean(Index head) const;
  std::vector<double> means() const;
  /// Along the tokens; NaN where none of a point's has a number.
  std::vector<double> points(Index head) const;
  /// The middle token of every point.
  std::vector<Index> middles() const;

  Index blind = 0;  ///< tokens and heads that see nothing

 private:
  std::size_t place(Index head, Index point) const { return static_cast<std::size_t>(head * count_ + point); }
  Index tokens_, heads_, each_, count_;
  std::vector<double> sums_, counts_;  // [head, point]
};

/// At most `most` of so many rows, spread evenly over all, and at least one where there are some.
annulus::Run evenly(Index rows, Index most);

/// A trace [token, head] of a group at these tokens, numbered anew from 0. Queries that see nothing (lse is -inf) are left out.
/// Throws Error (file) when it has other axes.
Along along(const InputFile& file, const std::string& group, const std::string& trace, const annulus::Run& rows);
/// At all tokens.
Along along(const InputFile& file, const std::string& group, const std::string& trace);

/// The axes [token, head] of a trace. Throws Error (file) when it has others.
Shape shape_of_trace(const InputFile& file, const std::string& name);

}  // namespace annulus::app

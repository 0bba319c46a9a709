#pragma once
#include <optional>
#include <string>
#include <vector>

#include "app/report/report.hpp"

namespace annulus::app {

/// The tokens of a text, spelled out.
class Words {
 public:
  /// Nothing where the file has no ids and no vocabulary, or more tokens than can be held (16M).
  static std::optional<Words> of(const InputFile& file);
  Index count() const { return static_cast<Index>(ids_.size()); }
  /// "?" where the file says nothing of it.
  std::string at(Index token) const;
  /// Of a range of tokens, as far as they are there: as they would be read.
  std::string text(Range tokens) const;
  /// What stands between two tokens.
  const std::string& gap() const { return gap_; }

 private:
  std::vector<Index> ids_;
  std::vector<std::string> vocabulary_;
  std::string gap_;
};

/// A stretch of the text whose tokens tell, when one points at them, which keys they look at. Nothing where the file does not keep
/// them (--trace full).
void add_excerpt(const InputFile& file, const std::string& group, const Words& words, const ReportChoice& choice,
                 Page& page);

}  // namespace annulus::app

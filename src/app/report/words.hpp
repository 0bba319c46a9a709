#pragma once
#include <optional>
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"

namespace annulus::app {

/// The tokens of a text, spelled out.
class Words {
 public:
  /// Nothing where the file has no ids and no vocabulary, or more tokens than can be held (16M).
  static std::optional<Words> of(const InputFile& file);
  Index count() const { return static_cast<Index>(ids_.size()); }
  /// "?" where the file says nothing of it.
  std::string at(Index token) const;
  /// Of a number of the vocabulary.
  std::string word(Index id) const;
  /// Of a range of tokens, as far as they are there: as they would be read.
  std::string text(Range tokens) const;
  /// What stands between two tokens.
  const std::string& gap() const { return gap_; }

 private:
  std::vector<Index> ids_;
  std::vector<std::string> vocabulary_;
  std::string gap_;
};

/// A word whose ends of lines are arrows, and other control characters the signs of their names.
std::string visible(const std::string& word);

}  // namespace annulus::app

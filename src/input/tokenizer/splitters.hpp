#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "input/tokenizer/pre_tokenizer.hpp"
#include "input/tokenizer/regex.hpp"

namespace annulus {

/// What becomes of the matches that a text is split at; "the--end" at "-":
///   isolated              the - - end
///   removed               the end
///   merged_with_previous  the- - end
///   merged_with_next      the - -end
///   contiguous            the -- end
enum class Delimiters : std::uint8_t { isolated, removed, merged_with_previous, merged_with_next, contiguous };

Delimiters read_delimiters(const Node& node);

/// Takes the stretches of a piece one after another, matches and what is between them, and passes on what the rule
/// makes of them.
class Cuts {
 public:
  Cuts(Delimiters rule, const Piece& piece, const TakePiece& take) : rule_(rule), piece_(piece), take_(take) {}
  /// Bytes of the piece, counted from its beginning.
  void add(Bytes stretch, bool matches);
  void finish();

 private:
  void pass(Bytes stretch);
  Delimiters rule_;
  const Piece& piece_;
  const TakePiece& take_;
  std::optional<Bytes> held_;
  bool last_matched_ = false;
};

/// Splits at the matches of a regular expression, or, `inverted`, at what is between them.
class RegexSplitter : public Splitter {
 public:
  RegexSplitter(Regex regex, Delimiters rule, bool inverted)
      : regex_(std::move(regex)), rule_(rule), inverted_(inverted) {}
  void split(const Piece& piece, const TakePiece& take) const override;

 private:
  Regex regex_;
  Delimiters rule_;
  bool inverted_;
};

/// Splits at the occurrences of a text.
class TextSplitter : public Splitter {
 public:
  TextSplitter(std::string text, Delimiters rule, bool inverted)
      : text_(std::move(text)), rule_(rule), inverted_(inverted) {}
  void split(const Piece& piece, const TakePiece& take) const override;

 private:
  std::string text_;
  Delimiters rule_;
  bool inverted_;
};

/// Splits at each character of a kind.
class CharacterSplitter : public Splitter {
 public:
  CharacterSplitter(bool (*is_of_kind)(char32_t), Delimiters rule) : is_of_kind_(is_of_kind), rule_(rule) {}
  void split(const Piece& piece, const TakePiece& take) const override;

 private:
  bool (*is_of_kind_)(char32_t);
  Delimiters rule_;
};

/// Passes on words and runs of what is neither of a word nor white space: \w+|[^\w\s]+.
class WordSplitter : public Splitter {
 public:
  void split(const Piece& piece, const TakePiece& take) const override;
};

/// Puts a space before what does not begin with one.
class SpacePrefix : public Splitter {
 public:
  void split(const Piece& piece, const TakePiece& take) const override;
};

/// Writes every byte as its letter.
class ByteLetters : public Splitter {
 public:
  void split(const Piece& piece, const TakePiece& take) const override;
};

/// Puts a mark in the place of spaces and before the text, and splits before marks.
class MarkSplitter : public Splitter {
 public:
  enum class Prefix : std::uint8_t { never, first, always };
  MarkSplitter(std::string mark, Prefix prefix, bool splits)
      : mark_(std::move(mark)), prefix_(prefix), splits_(splits) {}
  void split(const Piece& piece, const TakePiece& take) const override;

 private:
  std::string mark_;
  Prefix prefix_;
  bool splits_;
};

}  // namespace annulus

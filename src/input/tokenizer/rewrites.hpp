#pragma once
#include <functional>
#include <string>

#include "input/tokenizer/normalizer.hpp"
#include "input/tokenizer/regex.hpp"

namespace annulus {

/// Leaves out characters.
class LeaveOut : public Rewrite {
 public:
  explicit LeaveOut(bool (*leaves_out)(char32_t)) : leaves_out_(leaves_out) {}
  std::optional<Traced> apply(const Traced& text, Bytes part) const override;

 private:
  bool (*leaves_out_)(char32_t);
};

/// Writes every character as others, one or more: itself where it stays.
class Exchange : public Rewrite {
 public:
  explicit Exchange(std::u32string (*with)(char32_t)) : with_(with) {}
  std::optional<Traced> apply(const Traced& text, Bytes part) const override;

 private:
  std::u32string (*with_)(char32_t);
};

/// Puts a text before all others but empty ones.
class Prepend : public Rewrite {
 public:
  explicit Prepend(std::string before) : before_(std::move(before)) {}
  std::optional<Traced> apply(const Traced& text, Bytes part) const override;

 private:
  std::string before_;
};

/// Leaves out white space at the ends.
class Strip : public Rewrite {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  std::optional<Traced> apply(const Traced& text, Bytes part) const override;

 private:
  bool left_, right_;
};

/// Puts a text in the place of the occurrences of another.
class ReplaceText : public Rewrite {
 public:
  ReplaceText(std::string text, std::string with) : text_(std::move(text)), with_(std::move(with)) {}
  std::optional<Traced> apply(const Traced& text, Bytes part) const override;

 private:
  std::string text_, with_;
};

/// Puts a text in the place of the matches of a regular expression.
class ReplaceMatches : public Rewrite {
 public:
  ReplaceMatches(Regex regex, std::string with) : regex_(std::move(regex)), with_(std::move(with)) {}
  std::optional<Traced> apply(const Traced& text, Bytes part) const override;

 private:
  Regex regex_;
  std::string with_;
};

}  // namespace annulus

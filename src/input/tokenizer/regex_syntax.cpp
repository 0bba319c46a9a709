#include <algorithm>

#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/regex.hpp"

namespace annulus {
namespace {

// What \s and \w are to Oniguruma: White_Space, and letters, marks, digits, connectors and letters in circles.
constexpr std::string_view white =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view word =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
// Outside of brackets \w has the superscripts and fractions of Latin-1, too.
constexpr std::string_view word_outside = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

class Translation {
 public:
  Translation(std::string_view pattern, const Node& where) : pattern_(pattern), where_(where) {}

  std::string all() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') escape(false);
      else if (c == '[') bracket();
      else if (c == '(') group();
      else if (c == '{') interval();
      else copy(1);
    }
    return std::move(out_);
  }

 private:
  void copy(std::size_t bytes) { out_ += pattern_.substr(at_, bytes), at_ += bytes; }
  bool follows(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool is_digit(std::size_t at) const { return at < pattern_.size() && pattern_[at] >= '0' && pattern_[at] <= '9'; }
  bool is_hexadecimal(std::size_t at) const {
    return is_digit(at) || (at < pattern_.size() && ((pattern_[at] >= 'a' && pattern_[at] <= 'f') ||
                                                     (pattern_[at] >= 'A' && pattern_[at] <= 'F')));
  }
  [[noreturn]] void refuse(std::string_view what) const {
    where_.refuse("has a regular expression with ", what, ", which is not supported: ", quoted(pattern_));
  }

  // A backslash and what belongs to it.
  void escape(bool in_class) {
    if (at_ + 1 == pattern_.size()) refuse("a backslash at its end");
    const char c = pattern_[at_ + 1];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter || std::string_view("nrtfaedD").find(c) != std::string_view::npos) return copy(2);
    if (c == 'p' || c == 'P') return property();
    if (c == 'x') return code_point();
    if (c == 'u') {
      for (std::size_t n = 2; n < 6; ++n)
        if (!is_hexadecimal(at_ + n)) refuse("\\u without four digits");
      out_ += "\\x{", at_ += 2, copy(4), out_ += '}';
      return;
    }
    at_ += 2;
    const auto set = [&](const std::string& members) { out_ += in_class ? members : sentence('[', members, ']'); };
    switch (c) {
      case 's':
        return set(std::string(white));
      case 'w':
        return set(in_class ? std::string(word) : sentence(word, word_outside));
      case 'h':
        return set("0-9a-fA-F");
      case 'v':
        out_ += "\\x{b}";
        return;
      case 'S':
        if (in_class) out_ += "\\S";  // differs in U+180E
        else out_ += sentence("[^", white, ']');
        return;
      case 'W':
        if (in_class) refuse("\\W inside brackets");
        out_ += sentence("[^", word, word_outside, ']');
        return;
      case 'b':
        if (in_class) refuse("\\b inside brackets");
        return word_boundary(true);
      case 'B':
        if (in_class) refuse("\\B inside brackets");
        return word_boundary(false);
      case 'A':
      case 'z':
        if (in_class) refuse("an anchor inside brackets");
        out_.append("\\").append(1, c);
        return;
      default:
        refuse(sentence('\\', c));
    }
  }

  // Between a character of a word and another one, or, not at a boundary, between two of a kind.
  void word_boundary(bool at_one) {
    const std::string set = sentence('[', word, word_outside, ']');
    out_ +=
        sentence("(?:(?<=", set, ")(?", at_one ? '!' : '=', set, ")|(?<!", set, ")(?", at_one ? '=' : '!', set, "))");
  }

  // Categories, which have one or two letters, are the same; a script is one by its own, not by its extensions.
  void property() {
    const std::size_t end = pattern_.find('}', at_);
    if (at_ + 2 >= pattern_.size() || pattern_[at_ + 2] != '{' || end == std::string_view::npos)
      refuse("a \\p without braces");
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    const bool without = name.starts_with('^');
    if (without) name.remove_prefix(1);
    out_ += sentence(pattern_.substr(at_, 3), without ? "^" : "", name.size() > 2 ? "sc:" : "", name, '}');
    at_ = end + 1;
  }

  void code_point() {
    if (at_ + 2 < pattern_.size() && pattern_[at_ + 2] == '{') {
      const std::size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) refuse("\\x{ without }");
      return copy(end + 1 - at_);
    }
    if (!is_hexadecimal(at_ + 2) || !is_hexadecimal(at_ + 3) || pattern_[at_ + 2] > '7')
      refuse("an \\x that is no ASCII character");
    copy(4);
  }

  void bracket() {
    copy(1);
    if (at_ < pattern_.size() && pattern_[at_] == '^') copy(1);
    if (at_ < pattern_.size() && pattern_[at_] == ']') refuse("a ] that begins brackets");
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      if (follows("&&")) refuse("an intersection of brackets");
      if (pattern_[at_] == '\\') {
        escape(true);
      } else if (pattern_[at_] == '[') {
        refuse("brackets inside brackets");
      } else {
        copy(1);
      }
    }
    copy(1);
  }

  void group() {
    if (follows("(*")) refuse("(*");
    if (!follows("(?")) return copy(1);
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"})
      if (follows(known)) return copy(known.size());
    if (at_ == 0 && follows("(?i)")) return copy(4);
    refuse("a group of another kind than (?: (?= (?! (?<= (?<! (?> and (?i:");
  }

  // {2}, {2,}, {2,3}; a + behind it does not make it possessive here, and what is no interval stands for itself.
  void interval() {
    std::size_t end = at_ + 1;
    while (is_digit(end)) ++end;
    if (end == at_ + 1) refuse("a { that begins no interval");
    if (end < pattern_.size() && pattern_[end] == ',') ++end;
    while (is_digit(end)) ++end;
    if (end >= pattern_.size() || pattern_[end] != '}') refuse("a { that begins no interval");
    copy(end + 1 - at_);
    if (at_ < pattern_.size() && pattern_[at_] == '+') refuse("a + behind an interval");
  }

  std::string_view pattern_;
  const Node& where_;
  std::size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string in_pcre2_syntax(std::string_view pattern, const Node& where) { return Translation(pattern, where).all(); }

}  // namespace annulus

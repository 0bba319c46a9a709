#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "input/tokenizer/json.hpp"
#include "input/tokenizer/traced.hpp"

namespace annulus {

/// What a regular expression in the syntax of Oniguruma, as tokenizers are written in, is in that of PCRE2 with UTF and
/// UCP. `where` refuses what would mean something else: all but the usual groups and escapes.
std::string in_pcre2_syntax(std::string_view pattern, const Node& where);

/// A compiled regular expression. May be used by several threads at once, each with its own Matcher.
class Regex {
 public:
  /// `where` refuses what PCRE2 cannot compile.
  Regex(std::string_view pattern, const Node& where);
  ~Regex();
  Regex(Regex&& other) noexcept;
  Regex& operator=(Regex&&) = delete;

 private:
  friend class Matcher;
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

/// Finds a regular expression in one text, from left to right. An empty match directly behind a match does not count.
class Matcher {
 public:
  /// Both outlive this. Precondition: the text is UTF-8.
  Matcher(const Regex& regex, std::string_view text);
  ~Matcher();
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
  /// Throws Error (file) when the expression takes too many steps.
  std::optional<Bytes> next();

 private:
  struct Found;
  const Regex& regex_;
  std::string_view text_;
  std::unique_ptr<Found> found_;
  std::size_t from_ = 0;
  std::optional<std::size_t> last_end_;
};

}  // namespace annulus

#include "input/tokenizer/normalizer.hpp"

#include <utility>

#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/rewrites.hpp"
#include "input/tokenizer/unicode_form.hpp"

namespace annulus {
namespace {

constexpr int deepest = 16;

bool is_unclean(char32_t c) { return c == 0xfffd || (c != '\t' && c != '\n' && c != '\r' && is_other(c)); }
std::u32string plain_space(char32_t c) { return {is_white_space(c) ? U' ' : c}; }
std::u32string with_space_around_ideographs(char32_t c) {
  return is_ideograph(c) ? std::u32string{U' ', c, U' '} : std::u32string{c};
}

class Reader {
 public:
  explicit Reader(Normalizer& to) : to_(to) {}

  void read(const Node& node, int depth) {
    if (node.is_null()) return;
    const std::string type = node.type();
    if (type == "Sequence") return read_sequence(node, depth);
    if (type == "NFC") return add<UnicodeForm>(true, false);
    if (type == "NFD") return add<UnicodeForm>(false, false);
    if (type == "NFKC") return add<UnicodeForm>(true, true);
    if (type == "NFKD") return add<UnicodeForm>(false, true);
    if (type == "Lowercase") return add<Exchange>(lower);
    if (type == "StripAccents") return add<LeaveOut>(is_mark);
    if (type == "BertNormalizer") return read_bert(node);
    if (type == "Prepend") return add<Prepend>(node.at("prepend").text());
    if (type == "Strip") return add<Strip>(node.at("strip_left").flag_or(true), node.at("strip_right").flag_or(true));
    if (type == "Replace") return read_replace(node);
    node.refuse("is of a type that is not supported: ", quoted(type));
  }

 private:
  template <class Step, class... Arguments>
  void add(Arguments&&... arguments) {
    to_.steps.push_back(std::make_unique<Step>(std::forward<Arguments>(arguments)...));
  }

  void read_sequence(const Node& node, int depth) {
    node.require(depth < deepest, "is a sequence in more than ", deepest, " others");
    const Node parts = node.at("normalizers");
    for (std::size_t n = 0; n < parts.entries(); ++n) read(parts.entry(n), depth + 1);
  }

  void read_bert(const Node& node) {
    const bool lowers = node.at("lowercase").flag_or(true);
    if (node.at("clean_text").flag_or(true)) {
      add<LeaveOut>(is_unclean);
      add<Exchange>(plain_space);
    }
    if (node.at("handle_chinese_chars").flag_or(true)) add<Exchange>(with_space_around_ideographs);
    if (node.at("strip_accents").flag_or(lowers)) {
      add<UnicodeForm>(false, false);
      add<LeaveOut>(is_nonspacing_mark);
    }
    if (lowers) add<Exchange>(lower);
  }

  void read_replace(const Node& node) {
    const Node pattern = node.at("pattern"), regex = pattern.at("Regex"), text = pattern.at("String");
    pattern.require(regex.is_null() != text.is_null(), "must be one Regex or one String");
    const std::string with = node.at("content").text();
    node.at("content").require(regex.is_null() || with.find('$') == std::string::npos,
                               "with a $ is not supported beside a Regex: ", quoted(with));
    if (!regex.is_null()) return add<ReplaceMatches>(Regex(regex.text(), regex), with);
    text.require(!text.text().empty(), "must not be empty");
    if (text.text() == " ") to_.space = with;
    add<ReplaceText>(text.text(), with);
  }

  Normalizer& to_;
};

}  // namespace

Normalizer read_normalizer(const Node& node) {
  Normalizer result;
  Reader(result).read(node, 0);
  return result;
}

std::optional<Traced> Normalizer::apply(const Traced& text, Bytes part) const {
  std::optional<Traced> result;
  for (const auto& step : steps) {
    std::optional<Traced> next = result ? step->apply(*result, {0, result->text().size()}) : step->apply(text, part);
    if (next) result = std::move(next);
  }
  return result;
}

std::string Normalizer::apply(std::string_view text) const {
  const std::optional<Traced> changed = apply(Traced(text), {0, text.size()});
  return std::string(changed ? changed->text() : text);
}

}  // namespace annulus

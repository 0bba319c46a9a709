#include "input/tokenizer/splitters.hpp"

#include <utility>

#include "input/tokenizer/characters.hpp"

namespace annulus {
namespace {

// Passes on all of a text.
void pass_whole(const Traced& text, const TakePiece& take) { take({&text, {0, text.text().size()}}); }

void split_at(const Piece& piece, std::string_view text, Delimiters rule, bool inverted, const TakePiece& take) {
  const std::string_view view = piece.view();
  Cuts cuts(rule, piece, take);
  std::size_t last = 0;
  for (std::size_t at = view.find(text); at != std::string_view::npos; at = view.find(text, last)) {
    if (at > last) cuts.add({last, at}, inverted);
    last = at + text.size();
    cuts.add({at, last}, !inverted);
  }
  if (last < view.size()) cuts.add({last, view.size()}, inverted);
  cuts.finish();
}

}  // namespace

Delimiters read_delimiters(const Node& node) {
  constexpr std::string_view names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
  const std::string name = node.text();
  for (std::size_t n = 0; n < std::size(names); ++n)
    if (name == names[n]) return static_cast<Delimiters>(n);
  node.refuse("is not known: ", quoted(name));
}

void Cuts::pass(Bytes stretch) {
  if (stretch.count() > 0) take_({piece_.text, {piece_.bytes.begin + stretch.begin, piece_.bytes.begin + stretch.end}});
}

void Cuts::add(Bytes stretch, bool matches) {
  const bool first_match = matches && !last_matched_;
  const bool same_kind = matches == last_matched_;
  last_matched_ = matches;
  switch (rule_) {
    case Delimiters::isolated:
      return pass(stretch);
    case Delimiters::removed:
      return matches ? void() : pass(stretch);
    case Delimiters::merged_with_next:
      if (!matches) return pass({std::exchange(held_, {}).value_or(stretch).begin, stretch.end});
      break;
    case Delimiters::merged_with_previous:
    case Delimiters::contiguous:
      if (held_ && (rule_ == Delimiters::contiguous ? same_kind : first_match)) {
        held_->end = stretch.end;
        return;
      }
      break;
  }
  finish();
  held_ = stretch;
}

void Cuts::finish() {
  if (held_) pass(*std::exchange(held_, {}));
}

void RegexSplitter::split(const Piece& piece, const TakePiece& take) const {
  const std::string_view view = piece.view();
  Cuts cuts(rule_, piece, take);
  Matcher matcher(regex_, view);
  std::size_t last = 0;
  while (const std::optional<Bytes> match = matcher.next()) {
    if (match->begin != last) cuts.add({last, match->begin}, inverted_);
    cuts.add(*match, !inverted_);
    last = match->end;
  }
  if (last < view.size()) cuts.add({last, view.size()}, inverted_);
  cuts.finish();
}

void TextSplitter::split(const Piece& piece, const TakePiece& take) const {
  split_at(piece, text_, rule_, inverted_, take);
}

void CharacterSplitter::split(const Piece& piece, const TakePiece& take) const {
  const std::string_view view = piece.view();
  Cuts cuts(rule_, piece, take);
  std::size_t last = 0;
  for (std::size_t at = 0; at < view.size();) {
    const Character character = character_at(view, at);
    const std::size_t end = at + character.bytes;
    if (is_of_kind_(character.code)) {
      if (at > last) cuts.add({last, at}, false);
      cuts.add({at, end}, true);
      last = end;
    }
    at = end;
  }
  if (last < view.size()) cuts.add({last, view.size()}, false);
  cuts.finish();
}

void WordSplitter::split(const Piece& piece, const TakePiece& take) const {
  const std::string_view view = piece.view();
  enum class Kind : std::uint8_t { white, word, other };
  Kind kind = Kind::white;
  std::size_t begin = 0;
  const auto flush = [&](std::size_t end) {
    if (kind != Kind::white) take({piece.text, {piece.bytes.begin + begin, piece.bytes.begin + end}});
    begin = end;
  };
  for (std::size_t at = 0; at < view.size();) {
    const Character character = character_at(view, at);
    const Kind its = is_white_space(character.code) ? Kind::white : is_word(character.code) ? Kind::word : Kind::other;
    if (its != kind) flush(at), kind = its;
    at += character.bytes;
  }
  flush(view.size());
}

void SpacePrefix::split(const Piece& piece, const TakePiece& take) const {
  if (piece.view().starts_with(' ')) return take(piece);
  Rewriter writer(*piece.text);
  writer.put(" ", piece.bytes.begin);
  writer.keep(piece.bytes);
  pass_whole(std::move(writer).finish(), take);
}

void ByteLetters::split(const Piece& piece, const TakePiece& take) const {
  const std::string_view view = piece.view();
  Rewriter writer(*piece.text);
  for (std::size_t at = 0; at < view.size(); ++at)
    writer.put(utf8(letter_of(static_cast<unsigned char>(view[at]))), piece.bytes.begin + at);
  pass_whole(std::move(writer).finish(), take);
}

void MarkSplitter::split(const Piece& piece, const TakePiece& take) const {
  const std::string_view view = piece.view();
  Rewriter writer(*piece.text);
  std::size_t hint = 0;
  const bool at_begin = piece.text->source({piece.bytes.begin, piece.bytes.begin + 1}, hint).begin == 0;
  const bool prefixes = prefix_ == Prefix::always || (prefix_ == Prefix::first && at_begin);
  if (prefixes && !view.starts_with(' ') && !view.starts_with(mark_)) writer.put(mark_, piece.bytes.begin);
  std::size_t last = 0;
  for (std::size_t at = view.find(' '); at != std::string_view::npos; at = view.find(' ', last)) {
    writer.keep({piece.bytes.begin + last, piece.bytes.begin + at});
    writer.put(mark_, piece.bytes.begin + at);
    last = at + 1;
  }
  writer.keep({piece.bytes.begin + last, piece.bytes.end});
  const Traced marked = std::move(writer).finish();
  if (!splits_) return pass_whole(marked, take);
  split_at({&marked, {0, marked.text().size()}}, mark_, Delimiters::merged_with_next, false, take);
}

}  // namespace annulus

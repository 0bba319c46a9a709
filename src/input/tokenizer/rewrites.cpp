#include "input/tokenizer/rewrites.hpp"

#include <algorithm>
#include <utility>

#include "input/tokenizer/characters.hpp"

namespace annulus {
namespace {

std::string_view view(const Traced& text, Bytes part) { return text.text().substr(part.begin, part.count()); }

// Keeps a part of a text but for stretches that are written otherwise.
class Patches {
 public:
  Patches(const Traced& text, Bytes part) : text_(text), part_(part), kept_(part.begin) {}
  // Writes what stands before the stretch; the caller writes what takes its place.
  Rewriter& at(Bytes stretch) {
    if (!writer_) writer_.emplace(text_);
    writer_->keep({kept_, stretch.begin});
    kept_ = stretch.end;
    return *writer_;
  }
  std::optional<Traced> finish() {
    if (!writer_) return std::nullopt;
    writer_->keep({kept_, part_.end});
    return std::move(*writer_).finish();
  }

 private:
  const Traced& text_;
  Bytes part_;
  std::size_t kept_;
  std::optional<Rewriter> writer_;
};

// What takes a match's place stands for the last character of it.
void replace(Patches& patches, Bytes match, std::string_view with) {
  Rewriter& writer = patches.at(match);
  if (match.end == 0) writer.put_nowhere(with, 0);
  else writer.put(with, match.end - 1);
}

}  // namespace

std::optional<Traced> LeaveOut::apply(const Traced& text, Bytes part) const {
  Patches patches(text, part);
  for (std::size_t at = part.begin; at < part.end;) {
    const Character character = character_at(text.text(), at);
    const std::size_t end = at + character.bytes;
    if (leaves_out_(character.code)) patches.at({at, end});
    at = end;
  }
  return patches.finish();
}

std::optional<Traced> Exchange::apply(const Traced& text, Bytes part) const {
  Patches patches(text, part);
  for (std::size_t at = part.begin; at < part.end;) {
    const Character character = character_at(text.text(), at);
    const std::size_t end = at + character.bytes;
    const std::u32string others = with_(character.code);
    if (others.size() != 1 || others.front() != character.code) {
      Rewriter& writer = patches.at({at, end});
      for (const char32_t other : others) writer.put(utf8(other), at);
    }
    at = end;
  }
  return patches.finish();
}

std::optional<Traced> Prepend::apply(const Traced& text, Bytes part) const {
  if (part.count() == 0 || before_.empty()) return std::nullopt;
  Patches patches(text, part);
  patches.at({part.begin, part.begin}).put(before_, part.begin);
  return patches.finish();
}

std::optional<Traced> Strip::apply(const Traced& text, Bytes part) const {
  const std::string_view all = text.text();
  Bytes rest = part;
  while (left_ && rest.count() > 0 && is_white_space(character_at(all, rest.begin).code))
    rest.begin += character_at(all, rest.begin).bytes;
  while (right_ && rest.count() > 0) {
    const std::size_t last = character_before(all, rest.end);
    if (!is_white_space(character_at(all, last).code)) break;
    rest.end = last;
  }
  if (rest.count() == part.count()) return std::nullopt;
  Rewriter writer(text);
  writer.keep(rest);
  return std::move(writer).finish();
}

std::optional<Traced> ReplaceText::apply(const Traced& text, Bytes part) const {
  const std::string_view all = text.text().substr(0, part.end);
  Patches patches(text, part);
  for (std::size_t at = all.find(text_, part.begin); at != std::string_view::npos;
       at = all.find(text_, at + text_.size()))
    replace(patches, {at, at + text_.size()}, with_);
  return patches.finish();
}

std::optional<Traced> ReplaceMatches::apply(const Traced& text, Bytes part) const {
  Patches patches(text, part);
  Matcher matcher(regex_, view(text, part));
  while (const std::optional<Bytes> match = matcher.next())
    replace(patches, {part.begin + match->begin, part.begin + match->end}, with_);
  return patches.finish();
}

}  // namespace annulus

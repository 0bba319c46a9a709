#include "input/tokenizer/traced.hpp"

#include <algorithm>
#include <utility>

#include "input/tokenizer/characters.hpp"

namespace annulus {

const Traced::Link& Traced::link_of(std::size_t byte, std::size_t& hint) const {
  const auto holds = [&](std::size_t n) {
    return links_[n].at <= byte && (n + 1 == links_.size() || byte < links_[n + 1].at);
  };
  if (hint >= links_.size()) hint = 0;
  if (!holds(hint) && (hint + 1 == links_.size() || !holds(++hint)))
    hint = static_cast<std::size_t>(std::ranges::upper_bound(links_, byte, {}, &Link::at) - links_.begin() - 1);
  return links_[hint];
}

Bytes Traced::source_of(std::size_t byte, std::size_t& hint) const {
  const std::string_view text = this->text();
  const auto beside = [&](std::size_t at, std::size_t begin) {
    const std::size_t first = character_before(text, byte + 1);
    return Bytes{begin + first - at, begin + first - at + character_at(text, first).bytes};
  };
  if (!changed_) return beside(0, 0);
  const Link& link = link_of(byte, hint);
  return link.beside ? beside(link.at, link.begin) : Bytes{link.begin, link.begin + link.bytes};
}

Bytes Traced::source(Bytes bytes, std::size_t& hint) const {
  const std::size_t begin = source_of(bytes.begin, hint).begin;
  return {begin, std::max(begin, source_of(bytes.end - 1, hint).end)};
}

void Rewriter::link(std::size_t text_bytes, Bytes source, bool beside) {
  if (text_bytes == 0) return;
  std::vector<Traced::Link>& links = to_.links_;
  const std::size_t at = to_.own_.size();
  if (!links.empty()) {
    const Traced::Link& last = links.back();
    if (beside && last.beside && last.begin + at - last.at == source.begin) return;
    if (!beside && !last.beside && last.begin == source.begin && last.bytes == source.count()) return;
  }
  links.push_back({at, source.begin, beside ? 0 : static_cast<std::uint32_t>(source.count()), beside});
}

void Rewriter::keep(Bytes bytes) {
  const std::string_view text = from_.text();
  if (!from_.changed_) {
    link(bytes.count(), bytes, true);
    to_.own_ += text.substr(bytes.begin, bytes.count());
    return;
  }
  for (std::size_t at = bytes.begin; at < bytes.end;) {
    const Traced::Link& its = from_.link_of(at, hint_);
    const std::size_t end =
        hint_ + 1 < from_.links_.size() ? std::min(bytes.end, from_.links_[hint_ + 1].at) : bytes.end;
    if (its.beside) link(end - at, {its.begin + at - its.at, its.begin + end - its.at}, true);
    else link(end - at, {its.begin, its.begin + its.bytes}, false);
    to_.own_ += text.substr(at, end - at);
    at = end;
  }
}

void Rewriter::put(std::string_view characters, std::size_t source) {
  const Bytes stands_for = from_.source_of(source, hint_);
  const bool alone = !characters.empty() && character_at(characters, 0).bytes == characters.size();
  link(characters.size(), stands_for, alone && characters.size() == stands_for.count());
  to_.own_ += characters;
}

void Rewriter::put_nowhere(std::string_view characters, std::size_t place) {
  link(characters.size(), {place, place}, false);
  to_.own_ += characters;
}

Traced Rewriter::finish() && {
  to_.changed_ = true;
  return std::move(to_);
}

}  // namespace annulus

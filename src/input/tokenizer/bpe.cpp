#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/merges.hpp"
#include "input/tokenizer/model.hpp"
#include "input/tokenizer/pre_tokenizer.hpp"
#include "input/tokenizer/spelling.hpp"

namespace annulus {
namespace {

constexpr std::uint32_t none = ~std::uint32_t{0};

// How a text begins as tokens: characters, or bytes.
class Units {
 public:
  explicit Units(bool bytes) : of_bytes_(bytes) { by_byte_.fill(none), fallback_.fill(none); }

  void add(std::string_view spelling, std::uint32_t id) {
    if (of_bytes_ && spelling.size() == 1) by_byte_[static_cast<unsigned char>(spelling[0])] = id;
    if (of_bytes_ || count_characters(spelling) != 1) return;
    const char32_t code = character_at(spelling, 0).code;
    if (code < 0x80) by_byte_[code] = id;
    else by_code_.at(code) = id;
  }
  void set_fallback(unsigned char byte, std::uint32_t id) { fallback_[byte] = id; }
  void set_unknown(std::uint32_t id, bool fused) { unknown_ = id, fuses_ = fused; }

  bool of_bytes() const { return of_bytes_; }
  std::uint32_t of_byte(unsigned char byte) const { return by_byte_[byte]; }
  std::uint32_t of_character(char32_t code) const {
    if (code < 0x80) return by_byte_[code];
    const std::uint32_t* found = by_code_.find(code);
    return found == nullptr ? none : *found;
  }

  // Appends a text's units. What has none becomes the tokens of its bytes or the unknown one, or is left out.
  void split(std::string_view text, std::vector<PieceToken>& tokens) const {
    std::optional<PieceToken> unknown;
    for (std::size_t at = 0; at < text.size();) {
      const Character character =
          of_bytes_ ? Character{static_cast<unsigned char>(text[at]), 1} : character_at(text, at);
      const std::uint32_t id = of_bytes_ ? of_byte(static_cast<unsigned char>(text[at])) : of_character(character.code);
      const auto begin = static_cast<std::uint32_t>(at), end = static_cast<std::uint32_t>(at + character.bytes);
      at += character.bytes;
      if (id != none) {
        if (unknown) tokens.push_back(*std::exchange(unknown, {}));
        tokens.push_back({id, begin, end});
      } else if (!falls_back(text, begin, end, tokens) && unknown_ != none) {
        if (unknown && fuses_) unknown->end = end;
        else if (const auto before = std::exchange(unknown, PieceToken{unknown_, begin, end}))
          tokens.push_back(*before);
      }
    }
    if (unknown) tokens.push_back(*unknown);
  }

  std::vector<std::uint32_t> all(std::span<const std::uint32_t> of_characters) const {
    std::vector<std::uint32_t> ids(of_characters.begin(), of_characters.end());
    for (const std::uint32_t id : fallback_)
      if (id != none) ids.push_back(id);
    if (unknown_ != none) ids.push_back(unknown_);
    return ids;
  }

 private:
  bool falls_back(std::string_view text, std::uint32_t begin, std::uint32_t end,
                  std::vector<PieceToken>& tokens) const {
    const auto id_of = [&](std::uint32_t at) { return fallback_[static_cast<unsigned char>(text[at])]; };
    for (std::uint32_t at = begin; at < end; ++at)
      if (id_of(at) == none) return false;
    for (std::uint32_t at = begin; at < end; ++at) tokens.push_back({id_of(at), at, at + 1});
    return true;
  }

  bool of_bytes_, fuses_ = false;
  std::uint32_t unknown_ = none;
  std::array<std::uint32_t, 256> by_byte_{}, fallback_{};
  NumberTable<std::uint32_t> by_code_;
};

class Bpe : public Model {
 public:
  Bpe(Units units, Merges merges, std::optional<StringIds> whole)
      : units_(std::move(units)), merges_(std::move(merges)), whole_(std::move(whole)) {}

  void encode(std::string_view piece, PieceCache& cache, std::vector<PieceToken>& tokens) const override {
    if (whole_)
      if (const auto id = id_in(*whole_, piece))
        return tokens.push_back({*id, 0, static_cast<std::uint32_t>(piece.size())});
    const std::size_t first = tokens.size();
    const bool is_short = piece.size() <= PieceCache::longest_bytes;
    if (is_short) {
      if (const auto known = cache.find(piece)) {
        tokens.insert(tokens.end(), known->begin(), known->end());
        return;
      }
    }
    encode_stretches(piece, is_short ? nullptr : &cache, tokens);
    if (is_short) cache.insert(piece, std::span(tokens).subspan(first));
  }

 private:
  // Cuts where no rule merges across, so that stretches are short wherever they can be.
  void encode_stretches(std::string_view piece, PieceCache* cache, std::vector<PieceToken>& tokens) const {
    std::vector<PieceToken> units, stretch;
    units_.split(piece, units);
    for (std::size_t begin = 0; begin < units.size();) {
      std::size_t end = begin + 1;
      while (end < units.size() && !merges_.part(units[end - 1].id, units[end].id)) ++end;
      const std::span<const PieceToken> its = std::span(units).subspan(begin, end - begin);
      if (its.size() == 1) {
        tokens.push_back(its.front());
      } else {
        encode_stretch(piece, its, cache, stretch);
        tokens.insert(tokens.end(), stretch.begin(), stretch.end());
      }
      begin = end;
    }
  }

  void encode_stretch(std::string_view piece, std::span<const PieceToken> units, PieceCache* cache,
                      std::vector<PieceToken>& stretch) const {
    const std::uint32_t at = units.front().begin;
    const std::string_view text = piece.substr(at, units.back().end - at);
    if (text.size() > PieceCache::longest_bytes) cache = nullptr;
    const auto shift = [&] {
      for (PieceToken& token : stretch) token.begin += at, token.end += at;
    };
    if (cache != nullptr) {
      if (const auto known = cache->find(text)) {
        stretch.assign(known->begin(), known->end());
        return shift();
      }
    }
    stretch.assign(units.begin(), units.end());
    merges_.apply(stretch);
    if (cache == nullptr) return;
    for (PieceToken& token : stretch) token.begin -= at, token.end -= at;
    cache->insert(text, stretch);
    shift();
  }

  Units units_;
  Merges merges_;
  std::optional<StringIds> whole_;  // where a piece that is a token is not merged from its parts
};

// "a b", or ["a", "b"].
std::pair<std::string, std::string> read_pair(const Node& node) {
  if (node.value().is_array()) {
    node.require(node.entries() == 2, "must be two tokens");
    return {node.entry(0).text(), node.entry(1).text()};
  }
  const std::string text = node.text();
  const std::size_t space = text.find(' ');
  node.require(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
               "must be two tokens with a space between them, not ", quoted(text));
  return {text.substr(0, space), text.substr(space + 1)};
}

std::vector<Merges::Rule> read_rules(const Node& node, const StringIds& ids) {
  std::vector<Merges::Rule> rules;
  const auto id_of = [&](const Node& where, const std::string& token) {
    const auto id = id_in(ids, token);
    where.require(id.has_value(), "names ", quoted(token), ", which is not in the vocabulary");
    return *id;
  };
  for (std::size_t n = 0; n < node.entries(); ++n) {
    const Node entry = node.entry(n);
    if (n == 0 && entry.value().is_string() && entry.text().starts_with("#version")) continue;
    const auto [left, right] = read_pair(entry);
    rules.push_back({id_of(entry, left), id_of(entry, right), id_of(entry, left + right)});
  }
  return rules;
}

}  // namespace

std::unique_ptr<Model> read_bpe(const Node& node, bool bytes, const Vocabulary& vocabulary) {
  const Node dropout = node.at("dropout");
  dropout.require(dropout.is_null() || dropout.value() == 0.0,
                  "is not supported: tokens must not be a matter of chance");
  for (const char* const key : {"continuing_subword_prefix", "end_of_word_suffix"})
    node.at(key).require(node.at(key).text_or("").empty(), "is not supported: ", quoted(node.at(key).text_or("")));

  Units units(bytes);
  StringIds whole;
  std::vector<std::uint32_t> of_characters;
  for (const auto& [token, id] : vocabulary.ids) {
    const std::optional<std::string> spelling = bytes ? bytes_of_letters(token) : token;
    if (!spelling) continue;  // no text is spelled so
    units.add(*spelling, id);
    if (bytes ? spelling->size() == 1 : count_characters(*spelling) == 1) of_characters.push_back(id);
    if (node.at("byte_fallback").flag_or(false))
      if (const std::optional<char> byte = byte_of(token)) units.set_fallback(static_cast<unsigned char>(*byte), id);
    whole.emplace(*spelling, id);
  }
  const Node unknown = node.at("unk_token");
  if (!unknown.is_null()) {
    const auto id = id_in(vocabulary.ids, unknown.text());
    unknown.require(id.has_value(), "is not in the vocabulary: ", quoted(unknown.text()));
    units.set_unknown(*id, node.at("fuse_unk").flag_or(false));
  }
  const Node falls_back = node.at("byte_fallback");
  falls_back.require(!bytes || !falls_back.flag_or(false), "is not supported together with ByteLevel");

  const std::vector<Merges::Rule> rules = read_rules(node.at("merges"), vocabulary.ids);
  Merges merges(rules, units.all(of_characters));
  std::optional<StringIds> taken_whole;
  if (node.at("ignore_merges").flag_or(false)) taken_whole = std::move(whole);
  return std::make_unique<Bpe>(std::move(units), std::move(merges), std::move(taken_whole));
}

}  // namespace annulus

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/model.hpp"
#include "input/tokenizer/spelling.hpp"
#include "input/tokenizer/trie.hpp"

namespace annulus {
namespace {

constexpr std::uint32_t none = ~std::uint32_t{0};

// The tokens of the largest sum of scores (log probabilities) that spell a text (Viterbi). A character that no token
// spells counts 10 less than the least of all scores; such characters side by side are one unknown token.
class Unigram : public Model {
 public:
  Unigram(StringIds ids, std::vector<double> scores, std::uint32_t unknown, bool falls_back)
      : ids_(std::move(ids)), scores_(std::move(scores)), unknown_(unknown) {
    fallback_.fill(none);
    for (const auto& [token, id] : ids_) {
      if (!token.empty()) tokens_.add(token, id);
      const std::optional<char> byte = falls_back ? byte_of(token) : std::nullopt;
      if (byte) fallback_[static_cast<unsigned char>(*byte)] = id;
    }
    constexpr double penalty = 10;
    unknown_score_ = *std::ranges::min_element(scores_) - penalty;
  }

  void encode(std::string_view piece, PieceCache& cache, std::vector<PieceToken>& tokens) const override {
    const bool is_short = piece.size() <= PieceCache::longest_bytes / 4;  // a byte may become more than one token
    if (is_short) {
      if (const auto known = cache.find(piece)) {
        tokens.insert(tokens.end(), known->begin(), known->end());
        return;
      }
    }
    const std::size_t first = tokens.size();
    const std::vector<PieceToken> path = best_path(piece);
    for (const PieceToken& part : path) append(piece, part, tokens);
    if (is_short) cache.insert(piece, std::span(tokens).subspan(first));
  }

 private:
  struct Best {
    double score = 0;
    std::uint32_t id = none, begin = 0;  // of the last token on the way to here
  };

  std::vector<PieceToken> best_path(std::string_view piece) const {
    std::vector<Best> best(piece.size() + 1);
    const auto offer = [&](std::size_t end, Best way) {
      if (best[end].id == none || way.score > best[end].score) best[end] = way;
    };
    for (std::size_t at = 0; at < piece.size();) {
      const double here = best[at].score;
      const std::size_t next = at + character_at(piece, at).bytes;
      bool spelled = false;
      tokens_.find(piece, at, [&](std::uint32_t id, std::size_t end) {
        offer(end, {scores_[id] + here, id, static_cast<std::uint32_t>(at)});
        spelled |= end == next;
      });
      if (!spelled) offer(next, {unknown_score_ + here, unknown_, static_cast<std::uint32_t>(at)});
      at = next;
    }
    std::vector<PieceToken> path;
    for (auto end = static_cast<std::uint32_t>(piece.size()); end > 0; end = best[end].begin) {
      const bool joins = best[end].id == unknown_ && !path.empty() && path.back().id == unknown_;
      if (joins) path.back().begin = best[end].begin;
      else path.push_back({best[end].id, best[end].begin, end});
    }
    std::ranges::reverse(path);
    return path;
  }

  void append(std::string_view piece, PieceToken part, std::vector<PieceToken>& tokens) const {
    const std::string_view text = piece.substr(part.begin, part.end - part.begin);
    if (part.id == unknown_) {
      if (const auto id = id_in(ids_, text)) part.id = *id;
      else if (std::ranges::all_of(text, [&](char byte) { return fallback_of(byte) != none; })) {
        for (const char byte : text) tokens.push_back({fallback_of(byte), part.begin, part.end});
        return;
      }
    }
    tokens.push_back(part);
  }
  std::uint32_t fallback_of(char byte) const { return fallback_[static_cast<unsigned char>(byte)]; }

  StringIds ids_;
  std::vector<double> scores_;  // by id
  std::uint32_t unknown_;
  double unknown_score_ = 0;
  std::array<std::uint32_t, 256> fallback_{};
  Trie tokens_;
};

}  // namespace

std::unique_ptr<Model> read_unigram(const Node& node, Vocabulary& vocabulary) {
  const Node vocab = node.at("vocab"), unknown = node.at("unk_id");
  vocab.require(vocab.entries() > 0 && vocab.entries() < ids_end, "must have 1 to ", ids_end - 1, " tokens");
  std::vector<double> scores;
  for (std::size_t n = 0; n < vocab.entries(); ++n) {
    const Node entry = vocab.entry(n);
    entry.require(entry.entries() == 2 && entry.entry(1).value().is_number(), "must be a token and its score");
    scores.push_back(entry.entry(1).value().get<double>());
    entry.require(std::isfinite(scores.back()), "must have a finite score");
    vocabulary.ids[entry.entry(0).text()] = static_cast<std::uint32_t>(n);
  }
  vocabulary.end = static_cast<std::uint32_t>(scores.size());
  unknown.require(unknown.id() < scores.size(), "is not in the vocabulary: ", unknown.id());
  return std::make_unique<Unigram>(vocabulary.ids, std::move(scores), unknown.id(),
                                   node.at("byte_fallback").flag_or(false));
}

}  // namespace annulus

#include <optional>
#include <utility>

#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/model.hpp"
#include "input/tokenizer/trie.hpp"

namespace annulus {
namespace {

// The longest token that begins a word, then the longest that continues it, and so on; one token for a word of which no
// token goes on.
class WordPiece : public Model {
 public:
  WordPiece(const Vocabulary& vocabulary, std::string_view continued, std::uint32_t unknown,
            std::size_t most_characters)
      : unknown_(unknown), most_characters_(most_characters) {
    for (const auto& [token, id] : vocabulary.ids) {
      if (!token.empty()) tokens_.add(token, id, beginning);
      if (token.starts_with(continued) && token.size() > continued.size())
        tokens_.add(std::string_view(token).substr(continued.size()), id, continuing);
    }
  }

  void encode(std::string_view piece, PieceCache& cache, std::vector<PieceToken>& tokens) const override {
    const bool is_short = piece.size() <= PieceCache::longest_bytes;
    if (is_short) {
      if (const auto known = cache.find(piece)) {
        tokens.insert(tokens.end(), known->begin(), known->end());
        return;
      }
    }
    const std::size_t first = tokens.size();
    if (count_characters(piece) > most_characters_ || !find_all(piece, tokens)) {
      tokens.resize(first);
      tokens.push_back({unknown_, 0, static_cast<std::uint32_t>(piece.size())});
    }
    if (is_short) cache.insert(piece, std::span(tokens).subspan(first));
  }

 private:
  enum : std::uint32_t { beginning, continuing, sets };

  bool find_all(std::string_view piece, std::vector<PieceToken>& tokens) const {
    for (std::size_t at = 0; at < piece.size();) {
      std::optional<std::pair<std::uint32_t, std::size_t>> longest;
      const auto found = [&](std::uint32_t id, std::size_t end) { longest.emplace(id, end); };
      tokens_.find(piece, at, found, at == 0 ? beginning : continuing);
      if (!longest) return false;
      tokens.push_back({longest->first, static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(longest->second)});
      at = longest->second;
    }
    return true;
  }

  Trie tokens_{sets};
  std::uint32_t unknown_;
  std::size_t most_characters_;
};

}  // namespace

std::unique_ptr<Model> read_word_piece(const Node& node, const Vocabulary& vocabulary) {
  const Node unknown = node.at("unk_token"), most = node.at("max_input_chars_per_word");
  const auto id = id_in(vocabulary.ids, unknown.text());
  unknown.require(id.has_value(), "is not in the vocabulary: ", quoted(unknown.text()));
  most.require(most.is_null() || most.value().is_number_unsigned(), "must be a whole number");
  return std::make_unique<WordPiece>(vocabulary, node.at("continuing_subword_prefix").text_or("##"), *id,
                                     most.is_null() ? 100 : most.value().get<std::size_t>());
}

}  // namespace annulus

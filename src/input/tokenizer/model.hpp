#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "input/tokenizer/json.hpp"
#include "input/tokenizer/piece_cache.hpp"
#include "input/tokenizer/strings.hpp"

namespace annulus {

/// Makes tokens of pieces. Several threads may use one, each with its own cache.
class Model {
 public:
  virtual ~Model() = default;
  /// Appends the tokens of a piece, which is not empty and shorter than 4 GiB; their bytes are those of the piece.
  virtual void encode(std::string_view piece, PieceCache& cache, std::vector<PieceToken>& tokens) const = 0;
};

/// The entries of a vocabulary, as tokenizer.json spells them.
struct Vocabulary {
  StringIds ids;
  std::uint32_t end = 0;  ///< largest id + 1
};

/// Reads what "model" says. Of a model whose pieces are bytes (see PreTokenizer) the vocabulary spells them as letters.
/// Fills the vocabulary.
std::unique_ptr<Model> read_model(const Node& node, bool bytes, Vocabulary& vocabulary);

// One for each type.
std::unique_ptr<Model> read_bpe(const Node& node, bool bytes, const Vocabulary& vocabulary);
std::unique_ptr<Model> read_word_piece(const Node& node, const Vocabulary& vocabulary);
std::unique_ptr<Model> read_unigram(const Node& node, Vocabulary& vocabulary);

}  // namespace annulus

#include "input/tokenizer/model.hpp"

#include <algorithm>

namespace annulus {
namespace {

// Older files leave the type out.
std::string type_of(const Node& node) {
  if (!node.at("type").is_null()) return node.type();
  if (!node.at("merges").is_null()) return "BPE";
  if (node.at("vocab").value().is_array()) return "Unigram";
  return node.at("continuing_subword_prefix").is_null() ? "WordLevel" : "WordPiece";
}

void read_vocabulary(const Node& node, Vocabulary& vocabulary) {
  node.require(node.value().is_object(), "must be an object of ids");
  node.require(!node.value().empty(), "is empty");
  for (const auto& [token, id] : node.value().items()) {
    const bool fits = id.is_number_unsigned() && id.get<std::uint64_t>() < ids_end;
    node.require(fits, "gives ", quoted(token), " no id, which is a whole number from 0 to ", ids_end - 1);
    const auto number = id.get<std::uint32_t>();
    vocabulary.ids.emplace(token, number);
    vocabulary.end = std::max(vocabulary.end, number + 1);
  }
}

}  // namespace

std::unique_ptr<Model> read_model(const Node& node, bool bytes, Vocabulary& vocabulary) {
  node.require(!node.is_null(), "is missing");
  const std::string type = type_of(node);
  if (type == "Unigram") return read_unigram(node, vocabulary);
  node.require(type == "BPE" || type == "WordPiece", "is of a type that is not supported: ", quoted(type));
  read_vocabulary(node.at("vocab"), vocabulary);
  return type == "BPE" ? read_bpe(node, bytes, vocabulary) : read_word_piece(node, vocabulary);
}

}  // namespace annulus

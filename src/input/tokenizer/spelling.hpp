#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "input/tokenizer/normalizer.hpp"
#include "input/tokenizer/pre_tokenizer.hpp"

namespace annulus {

/// The byte that a token of byte_fallback stands for, "<0x0A>"; nothing where it is none of them.
std::optional<char> byte_of(std::string_view token);

/// Says what the entries of a vocabulary stand for in a text.
class Speller {
 public:
  /// document: all of tokenizer.json. Precondition: it has a model.
  Speller(const Node& document, const PreTokenizer& pre_tokenizer, const Normalizer& normalizer);
  /// Legible: bytes that are not UTF-8 as \xNN.
  std::string spell(std::string_view token) const;

 private:
  bool letters_, falls_back_;
  std::string space_, continued_;
};

}  // namespace annulus

#pragma once
#include <optional>
#include <string>
#include <vector>

#include "annulus/engine/heads.hpp"
#include "annulus/geometry/mask.hpp"
#include "annulus/input/encoded.hpp"
#include "annulus/input/tokenizer.hpp"
#include "annulus/model/transformer.hpp"

namespace annulus::app {

/// A trained transformer and the texts it is to read.
struct ModelChoice {
  std::string folder;
  std::vector<std::string> files;
  bool ids = false;  ///< the files hold numbers of tokens
  std::string mask;  ///< terms that all layers have; empty: the model's own
};

/// The texts as the model reads them, and what each of its layers sees: the same on every rank.
struct ModelSubject {
  /// Throws Error (file) for files that are not as they should be, (usage) for a mask that does not suit the model.
  explicit ModelSubject(const ModelChoice& choice);

  /// As the model sees it.
  Index position(Index token) const { return documents_apart ? token - texts->document_of(token).begin : token; }
  /// The id behind a token in its document, -1: none.
  Index next(Index token) const;
  AttentionShape attention(DType type) const;
  const Mask& mask(Index layer) const { return masks[mask_of[static_cast<std::size_t>(layer)]]; }
  std::vector<std::string> files() const { return {texts->files().begin(), texts->files().end()}; }
  /// Files of the model, with the tokenizer's; those of its tensors are the transformer's.
  std::vector<std::string> model_files(const Transformer& transformer) const;

  std::string folder;
  std::optional<Tokenizer> tokenizer;  ///< none: ids, or not needed any more
  std::optional<EncodedTexts> texts;
  std::vector<Index> offsets;    ///< of documents
  std::string base_mask;         ///< terms that all layers have
  bool documents_apart = false;  ///< positions begin anew with each document
  bool by_ids = false;           ///< there is no tokenizer
  Index longest = 0;             ///< positions of the longest document
  TransformerShape shape;
  std::vector<Mask> masks;           ///< different ones
  std::vector<std::size_t> mask_of;  ///< by layer

 private:
  void check_ids() const;
  void read_shape();
  void make_masks();
};

/// "layers/007".
std::string layer_group(Index layer);

}  // namespace annulus::app

#include "app/model_subject.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "annulus/base/error.hpp"
#include "app/job.hpp"
#include "app/sequence.hpp"

namespace annulus::app {

std::string layer_group(Index layer) {
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "layers/%03lld", static_cast<long long>(layer));
  return name.data();
}

ModelSubject::ModelSubject(const ModelChoice& choice)
    : folder(choice.folder),
      base_mask(choice.mask),
      documents_apart(names_term(choice.mask, "documents")),
      by_ids(choice.ids) {
  if (by_ids) {
    texts.emplace(choice.files);
  } else {
    tokenizer.emplace(folder);
    texts.emplace(choice.files, *tokenizer);
  }
  offsets.assign(texts->offsets().begin(), texts->offsets().end());
  read_shape();
  check_ids();
  make_masks();
}

void ModelSubject::read_shape() {
  longest = texts->tokens();
  Index shortest = longest;
  for (std::size_t d = 1; documents_apart && d < offsets.size(); ++d) {
    const Index tokens = offsets[d] - offsets[d - 1];
    longest = d == 1 ? tokens : std::max(longest, tokens);
    shortest = std::min(shortest, tokens);
  }
  shape = read_transformer_shape(folder, longest);
  const TransformerShape other = read_transformer_shape(folder, shortest);
  for (std::size_t r = 0; r < shape.rotaries.size(); ++r)
    require(shape.rotaries[r].frequencies == other.rotaries[r].frequencies, "rotary positions of ", folder,
            " depend on how long a document is (dynamic, longrope), and here are some of ", shortest, " to ", longest,
            " tokens, on which they differ: run them one by one, or without the mask term documents");
  require(!shape.learned_positions || longest <= shape.positions, "the model ", folder, " knows ", shape.positions,
          " positions, and ", documents_apart ? "the longest document" : "the text", " has ", longest, " tokens",
          documents_apart || offsets.size() < 3 ? "" : " (with the mask term documents each file begins anew)");
}

void ModelSubject::check_ids() const {
  const auto ids = texts->ids();
  const auto wrong = std::ranges::find_if(ids, [this](std::uint32_t id) { return id >= shape.vocabulary; });
  if (wrong == ids.end()) return;
  const Index token = wrong - ids.begin(), document = texts->document(token);
  throw Error(Failure::file, sentence(texts->path(document), ": ids of tokens must be below the model's vocabulary of ",
                                      shape.vocabulary, ": token ", token - offsets[static_cast<std::size_t>(document)],
                                      " is ", *wrong));
}

std::vector<std::string> ModelSubject::model_files(const Transformer& transformer) const {
  std::vector<std::string> all = transformer.files();
  if (!by_ids) all.push_back(folder + "/tokenizer.json");
  return all;
}

void ModelSubject::make_masks() {
  const Extent extent{texts->tokens(), texts->tokens(), offsets};
  const bool windows = std::ranges::any_of(shape.layer, [](const auto& layer) { return layer.window_before >= 0; });
  require(!windows || ("+" + base_mask).find("+window:") == std::string::npos,
          "the mask must not have a window where layers have windows of their own, as those of ", folder, ": it is ",
          base_mask);
  if (base_mask.empty()) base_mask = shape.causal ? "causal" : "full";
  for (const TransformerShape::Layer& layer : shape.layer) {
    std::string terms = base_mask;
    if (layer.window_before >= 0) terms += sentence("+window:", layer.window_before, ",", layer.window_after);
    Mask mask = shape.causal ? mask_looking_back(terms, extent) : Mask::parse(terms, extent);
    const auto known = std::ranges::find(masks, mask.name(), &Mask::name);
    mask_of.push_back(static_cast<std::size_t>(known - masks.begin()));
    if (known == masks.end()) masks.push_back(std::move(mask));
  }
}

Index ModelSubject::next(Index token) const {
  if (token + 1 >= texts->document_of(token).end) return -1;
  return static_cast<Index>(texts->ids()[static_cast<std::size_t>(token) + 1]);
}

AttentionShape ModelSubject::attention(DType type) const {
  return {shape.query_heads, shape.kv_heads, shape.head_channels, shape.head_channels, type, shape.softmax_scale};
}

}  // namespace annulus::app

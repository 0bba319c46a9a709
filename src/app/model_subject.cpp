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
    : folder(choice.folder), base_mask(choice.mask), documents_apart(names_term(choice.mask, "documents")) {
  if (choice.ids) {
    texts.emplace(choice.files);
  } else {
    tokenizer.emplace(folder);
    texts.emplace(choice.files, *tokenizer);
  }
  offsets.assign(texts->offsets().begin(), texts->offsets().end());
  longest = texts->tokens();
  if (documents_apart) {
    longest = 0;
    for (std::size_t d = 1; d < offsets.size(); ++d) longest = std::max(longest, offsets[d] - offsets[d - 1]);
  }
  shape = read_transformer_shape(folder, longest);
  require(!shape.learned_positions || longest <= shape.positions, "the model ", folder, " knows ", shape.positions,
          " positions, and ", documents_apart ? "the longest document" : "the text", " has ", longest, " tokens",
          documents_apart || offsets.size() < 3 ? "" : " (with the mask term documents each file begins anew)");
  make_masks();
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
